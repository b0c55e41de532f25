package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// signature is one signature that lies beside a file. It was not checked: for
// that the key has to come from a registry that is trusted.
type signature struct {
	File  string `json:"file"`
	KeyID string `json:"key_id"`
}

// maxSignature bounds a signature file, maxSignatures the signatures in it.
const (
	maxSignature  = 1 << 20 // bytes
	maxSignatures = 64
)

// signaturesBeside returns the signatures in the file that belongs to path: a
// DSSE envelope, https://github.com/secure-systems-lab/dsse.
func signaturesBeside(path string) ([]signature, error) {
	path += ".sig"
	data, err := readAny(path, maxSignature)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseSignatures(path, data)
}

func parseSignatures(path string, data []byte) ([]signature, error) {
	var envelope struct {
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			KeyID string `json:"keyid"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(data, &envelope); err != nil {
		return nil, fmt.Errorf("%s: not a signature: %w", path, err)
	}
	if envelope.PayloadType == "" || len(envelope.Signatures) > maxSignatures {
		return nil, fmt.Errorf("%s: not a signature: no payload type, or %d signatures", path, len(envelope.Signatures))
	}
	var all []signature
	for _, s := range envelope.Signatures {
		all = append(all, signature{path, s.KeyID})
	}
	return all, nil
}

// lines returns the lines of a text, none of an empty one.
func lines(text string) []string {
	if text = strings.TrimRight(text, "\n"); text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// orNone stands for a text that is not there.
func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
