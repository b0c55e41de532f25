package apply

func childMain() int { return 0 }
