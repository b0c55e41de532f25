package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// uniqueKeys refuses objects in which one key stands twice, in whatever case:
// two readers might read two different things.
func uniqueKeys(text []byte) error {
	type level struct {
		keys map[string]bool // nil in an array
		key  bool            // a key comes next
	}
	var stack []level
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		token, err := d.Token()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		var top *level
		if len(stack) > 0 {
			top = &stack[len(stack)-1]
		}
		if name, ok := token.(string); ok && top != nil && top.key {
			name = strings.ToLower(strings.ToUpper(name)) // as package json folds it
			if top.keys[name] {
				return fmt.Errorf("key %q stands twice", name)
			}
			top.keys[name], top.key = true, false
			continue
		}
		if top != nil && top.keys != nil {
			top.key = true // after the value, or the end of the object
		}
		switch token {
		case json.Delim('{'):
			stack = append(stack, level{keys: map[string]bool{}, key: true})
		case json.Delim('['):
			stack = append(stack, level{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
		}
	}
}
