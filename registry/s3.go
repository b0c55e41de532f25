package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	getter "github.com/hashicorp/go-getter/v2"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// bucket is the part of an S3 bucket below a prefix.
type bucket struct {
	at      *place
	careful *carefully
	s3      minio.Core
	prefix  string // "" or with a slash at its end
}

func newBucket(at *place) (*bucket, error) {
	careful := newCareful()
	// AWS_ACCESS_KEY_ID and the others, then ~/.aws/credentials; the role of a
	// machine, which a request to the network finds, at Amazon only.
	sources := []credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}}
	if strings.HasSuffix(at.endpoint.Hostname(), ".amazonaws.com") {
		sources = append(sources, &credentials.IAM{})
	}
	s3, err := minio.NewCore(at.endpoint.Host, &minio.Options{
		Creds: credentials.NewChainCredentials(sources), Secure: at.endpoint.Scheme == "https",
		Transport: careful, Region: at.region, MaxRetries: maxS3Tries,
	})
	if err != nil {
		return nil, fail(ErrUnreachable, at.String(), "%w", err)
	}
	b := &bucket{at: at, careful: careful, s3: *s3, prefix: strings.TrimPrefix(at.Path, "/")}
	if b.prefix != "" {
		b.prefix += "/"
	}
	return b, nil
}

// maxS3Tries is how often a request is made that the server is too busy for.
const maxS3Tries = 3

func (b *bucket) getter(name string, max int64) getter.Getter {
	return &objectGetter{"s3", name, max, func(ctx context.Context, name string, max int64) (io.ReadCloser, error) {
		body, _, _, err := b.s3.GetObject(withLimit(ctx, max), b.at.Host, b.prefix+name, minio.GetObjectOptions{})
		return body, s3Error(err)
	}}
}

// get returns a file and its ETag.
func (b *bucket) get(ctx context.Context, name string, max int64) (data []byte, etag string, err error) {
	ctx, cancel := context.WithTimeout(ctx, maxFetch)
	defer cancel()
	body, info, _, err := b.s3.GetObject(withLimit(ctx, max), b.at.Host, b.prefix+name, minio.GetObjectOptions{})
	if err != nil {
		return nil, "", fetchError(ctx, name, s3Error(err))
	}
	defer body.Close()
	data, err = readBounded(ctx, body, name, max)
	return data, info.ETag, err
}

// put writes a file; a condition that does not hold is ErrRaced.
func (b *bucket) put(ctx context.Context, name string, data []byte, set func(*minio.PutObjectOptions)) error {
	ctx, cancel := context.WithTimeout(ctx, maxFetch)
	defer cancel()
	o := minio.PutObjectOptions{DisableMultipart: true, ContentType: "application/octet-stream"}
	set(&o)
	_, err := b.s3.PutObject(withLimit(ctx, maxSaid), b.at.Host, b.prefix+name, bytes.NewReader(data), int64(len(data)), "", "", o)
	return writeError(ctx, name, s3Error(err))
}

func always(*minio.PutObjectOptions) {}

func ifNew(o *minio.PutObjectOptions) { o.SetMatchETagExcept("*") }

func ifStill(etag string) func(*minio.PutObjectOptions) {
	return func(o *minio.PutObjectOptions) { o.SetMatchETag(etag) }
}

// Codes of S3's errors
// (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html).
var (
	s3Denied = []string{"InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed", "AccountProblem"}
	s3Full   = []string{"QuotaExceeded", "XMinioStorageFull", "EntityTooLarge", "InsufficientStorage"}
	s3Raced  = []string{"ConditionalRequestConflict", "PreconditionFailed"}
)

// s3Error makes a [*statusError] of an answer of the server.
func s3Error(err error) error {
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) || answer.StatusCode == 0 {
		return err
	}
	s := newStatusError(answer.StatusCode, answer.Code, answer.Message)
	s.denied = slices.Contains(s3Denied, answer.Code)
	s.full = slices.Contains(s3Full, answer.Code)
	if slices.Contains(s3Raced, answer.Code) {
		s.code = http.StatusPreconditionFailed
	}
	return s
}

// conditional is a bucket as a store. It has no lock: a version's name is
// written once, and a file that readers look at replaces what was there only if
// it is still that.
type conditional struct {
	*transport
	files *bucket

	mu     sync.Mutex
	proven bool // that the server knows conditions
}

// probeFile is written to see whether the server knows conditions.
const probeFile = "probe"

// lock makes sure, once, that the server knows conditions: one that ignores
// them would let publishers overwrite each other's work.
func (c *conditional) lock(ctx context.Context) (func(), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proven {
		return func() {}, nil
	}
	content := []byte("conditional requests are known here\n")
	err := c.files.put(ctx, probeFile, content, ifNew)
	if err == nil { // it was not there, and is now
		err = c.files.put(ctx, probeFile, content, ifNew)
	}
	if errors.Is(err, ErrRaced) {
		err = c.files.put(ctx, probeFile, content, ifStill(noETag))
	}
	switch {
	case err == nil:
		return nil, fail(ErrUnreachable, c.at.String(), "this S3 server ignores If-None-Match or If-Match: two publishers could overwrite each other's work")
	case !errors.Is(err, ErrRaced):
		return nil, err
	}
	c.proven = true
	return func() {}, nil
}

// noETag is the ETag of no file.
const noETag = "00000000000000000000000000000000"

func (c *conditional) write(ctx context.Context, name string, data []byte) error {
	return c.files.put(ctx, name, data, always)
}

func (c *conditional) create(ctx context.Context, name string, data []byte) error {
	err := c.files.put(ctx, name, data, ifNew)
	if !errors.Is(err, ErrRaced) {
		return err
	}
	if there, _, err := c.files.get(ctx, name, int64(len(data))); err == nil && bytes.Equal(there, data) {
		return nil
	}
	return &Error{ErrTaken, name, nil}
}

func (c *conditional) commit(ctx context.Context, name string, old, data []byte) error {
	now, etag, err := c.files.get(ctx, name, maxCommitted)
	switch {
	case errors.Is(err, ErrNotFound) && old == nil:
		return c.files.put(ctx, name, data, ifNew)
	case err != nil:
		return err
	case bytes.Equal(now, data):
		return nil
	case !bytes.Equal(now, old):
		return &Error{ErrRaced, name, nil}
	}
	err = c.files.put(ctx, name, data, ifStill(etag))
	if errors.Is(err, ErrRaced) {
		// A request that was made again after no answer came meets what it did.
		if now, _, readErr := c.files.get(ctx, name, int64(len(data))); readErr == nil && bytes.Equal(now, data) {
			return nil
		}
	}
	return err
}
