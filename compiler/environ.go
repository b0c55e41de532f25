package compiler

import (
	"os"
	"slices"
	"strings"
)

// secrets are the variables that publishing needs, in which keys, passwords or
// addresses with passwords are. A build runs what others wrote.
var secrets = []string{"FOTHER_REGISTRY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "DOCKER_AUTH_CONFIG"}

// secretPrefix is that of all variables with signing keys, and of their
// passphrase.
const secretPrefix = "FOTHER_KEY_"

// Environ returns this process's environment as builds see it: without the
// variables that hold signing keys and the credentials of registries.
func Environ() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return strings.HasPrefix(name, secretPrefix) || slices.Contains(secrets, name)
	})
}
