package registry

import (
	"errors"
	"fmt"
)

// Classes of errors that callers tell apart with errors.Is.
var (
	// ErrExpired means that signed metadata are past their date: nobody has
	// renewed them, somebody keeps newer ones from us, or the clock is wrong.
	ErrExpired = errors.New("expired")
	// ErrUntrusted means that a file is not what was signed: damaged, replaced
	// by an older one, signed by the wrong key, or sent from elsewhere.
	ErrUntrusted = errors.New("not trusted")
	// ErrUnsigned means that a bundle is signed by fewer keys than its package
	// asks for. It is one of ErrUntrusted too.
	ErrUnsigned = errors.New("signatures are missing")
	// ErrUnreachable means that the store did not answer, or not with a file.
	// What was valid before stays in use.
	ErrUnreachable = errors.New("not reachable")
	// ErrTooLarge means that a file is longer than its limit.
	ErrTooLarge = errors.New("too large")
	// ErrNotFound means that the store says that it has no such file.
	ErrNotFound = errors.New("not found")
	// ErrState means that the client's own folder cannot be used.
	ErrState = errors.New("state folder unusable")

	// ErrPublished means that every release given to Publish is there already,
	// with the same bytes. Nothing was changed; most callers take it for
	// success.
	ErrPublished = errors.New("already published")
	// ErrConflict means that a level of a series is there already with another
	// content, or that a package belongs to another key.
	ErrConflict = errors.New("conflict")
	// ErrInvalid means that a release has a value that cannot be published.
	ErrInvalid = errors.New("invalid release")
	// ErrKey means that a key is missing, unreadable or readable by others.
	ErrKey = errors.New("key unusable")
	// ErrPassphrase means that an encrypted key could not be opened.
	ErrPassphrase = errors.New("passphrase")
	// ErrDue means that something expires soon that only keys can renew which
	// are not at hand; all else was done.
	ErrDue = errors.New("renewal due")
	// ErrRaced means that other publishers changed the registry meanwhile, again
	// and again; nothing of this change is visible.
	ErrRaced = errors.New("another publisher was faster")
	// ErrTaken means that a version's name is in use.
	ErrTaken = errors.New("the name is in use")
	// ErrPending means that owners of other keys have to sign too.
	ErrPending = errors.New("signatures are pending")
	// ErrExists means that Init would overwrite keys or a registry.
	ErrExists = errors.New("already exists")
)

// Error is an error about one file, key or limit.
type Error struct {
	Kind error  // one of the classes above
	File string // its name in the registry, or its path
	Err  error  // what is wrong
}

func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("%s: %v", e.File, e.Kind)
	}
	return fmt.Sprintf("%s: %v", e.File, e.Err)
}

// Unwrap returns the class and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// hints say what a user can do about an error of a class.
var hints = map[error]string{
	ErrExpired:     "if this machine's clock is right, the registry's owner has to renew the signatures: registry:refresh",
	ErrUntrusted:   "the store holds something that the registry's keys did not sign, or root.json is of another registry; what was valid before stays in use",
	ErrUnsigned:    "whoever holds another key of this package has to rebuild the bundle and sign it too: patch:verify SPEC -rebuild",
	ErrUnreachable: "check the registry's address and the network; what was fetched before stays in use until it expires",
	ErrState:       "use a folder that only you can write, on a disk that has room",
	ErrConflict:    "raise the level, or sign with the key that the package has had so far; what is published is never replaced",
	ErrKey:         "keys are files that only their owner can read (chmod 600); registry:init makes them",
	ErrPassphrase:  "the passphrase is that of FOTHER_KEY_PASSPHRASE, or it is asked for on a terminal",
	ErrDue:         "all else is signed anew; run registry:refresh with the keys of root and targets before then",
	ErrPending:     "nothing has changed for hosts yet; send what waits to the owners of the other keys",
	ErrRaced:       "nothing was changed; try again when the other publishers are done",
	ErrExists:      "use other folders, or go on with what is there",
}

// Hint says what a user can do about the error, or nothing.
func (e *Error) Hint() string { return hints[e.Kind] }

func fail(kind error, file, format string, args ...any) error {
	return &Error{Kind: kind, File: file, Err: fmt.Errorf(format, args...)}
}
