package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"

	getter "github.com/hashicorp/go-getter/v2"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	ociregistry "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// artifacts is a repository of an OCI registry. Each file is an artifact with a
// tag and one layer, of which the manifest holds a copy if it is small: then one
// request reads it.
type artifacts struct {
	at      *place
	careful *carefully
	repo    *remote.Repository
	empty   sync.Mutex
	pushed  bool // the empty configuration is there
}

const (
	// artifactType is the type of each artifact.
	artifactType = "application/vnd.fother.registry.file.v1"
	// maxInline bounds the files that their manifest holds too, in bytes.
	maxInline = 64 << 10
	// maxManifest bounds a manifest, in bytes; registries take 4 MiB.
	maxManifest = 256 << 10
)

func newArtifacts(at *place) (*artifacts, error) {
	name := at.Host + at.Path
	ref, err := ociregistry.ParseReference(name)
	if err != nil || ref.Reference != "" {
		return nil, fail(ErrUnreachable, at.String(), "want oci://HOST/REPOSITORY, of lower-case letters, digits and . _ - /, without a tag")
	}
	a := &artifacts{at: at, careful: newCareful()}
	find, err := ociCredentials(at, ref.Host())
	if err != nil {
		return nil, err
	}
	a.repo = &remote.Repository{
		Reference: ref, PlainHTTP: at.plain, MaxMetadataBytes: maxManifest, SkipReferrersGC: true,
		Client: &auth.Client{
			Client:     &http.Client{Transport: a.careful, CheckRedirect: checkBlobRedirect},
			Credential: find, Cache: auth.NewCache(),
		},
	}
	return a, nil
}

// ociCredentials looks where other clients do: in the address, in
// DOCKER_AUTH_CONFIG, which has the content of a configuration file, in the file
// REGISTRY_AUTH_FILE, and in docker's.
func ociCredentials(at *place, host string) (auth.CredentialFunc, error) {
	if at.user != nil {
		password, _ := at.user.Password()
		return auth.StaticCredential(host, auth.Credential{Username: at.user.Username(), Password: password}), nil
	}
	var store credentials.Store
	var err error
	from := "docker's config.json"
	if text := os.Getenv("DOCKER_AUTH_CONFIG"); text != "" {
		from = "DOCKER_AUTH_CONFIG"
		store, err = credentials.NewMemoryStoreFromDockerConfig([]byte(text))
	} else if file := os.Getenv("REGISTRY_AUTH_FILE"); file != "" {
		from = file
		store, err = credentials.NewStore(file, credentials.StoreOptions{})
	} else if os.Getenv("DOCKER_CONFIG") == "" && os.Getenv("HOME") == "" {
		return nil, nil // as for a service without a home
	} else {
		store, err = credentials.NewStoreFromDocker(credentials.StoreOptions{})
	}
	if err != nil {
		return nil, fail(ErrDenied, from, "credentials cannot be read from it") // the error may quote them
	}
	return credentials.Credential(store), nil
}

// checkBlobRedirect follows redirects within one server, and those of a blob to
// a server that holds the registry's blobs: it gets no credentials, and a blob
// is named by its digest.
func checkBlobRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	blob := first.Method == http.MethodGet && strings.Contains(first.URL.Path, "/blobs/sha256:")
	if !blob || req.URL.Scheme != first.URL.Scheme && req.URL.Scheme != "https" || len(via) > maxRedirects {
		return checkRedirect(req, via)
	}
	if req.URL.Host != first.URL.Host {
		for _, header := range []string{"Authorization", "Cookie", "Www-Authenticate"} {
			req.Header.Del(header)
		}
	}
	return nil
}

// plainTag are names that are tags, but for their slashes.
var plainTag = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]*(/[A-Za-z0-9.-]+)*$`)

// maxTag is the length of the longest tag (OCI distribution specification).
const maxTag = 128

// tagOf returns the tag of a file: its name with _ for each slash, or, if that is no
// tag or too long, x_ and the SHA-256 of the name.
func tagOf(name string) string {
	if plainTag.MatchString(name) && len(name) <= maxTag {
		return strings.ReplaceAll(name, "/", "_")
	}
	sum := sha256.Sum256([]byte(name))
	return "x_" + hex.EncodeToString(sum[:])
}

func (a *artifacts) getter(name string, max int64) getter.Getter {
	return &objectGetter{"oci", name, max, a.open}
}

func (a *artifacts) open(ctx context.Context, name string, max int64) (io.ReadCloser, error) {
	layer, err := a.layer(ctx, name)
	if err != nil {
		return nil, ociError(err)
	}
	if layer.Size > max {
		return nil, fail(ErrTooLarge, name, "%d bytes: want at most %d", layer.Size, max)
	}
	if int64(len(layer.Data)) == layer.Size && digest.FromBytes(layer.Data) == layer.Digest {
		return io.NopCloser(bytes.NewReader(layer.Data)), nil
	}
	body, err := a.repo.Blobs().Fetch(ctx, layer)
	return body, ociError(err)
}

// layer returns the descriptor of a file's content.
func (a *artifacts) layer(ctx context.Context, name string) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	_, body, err := a.repo.Manifests().FetchReference(ctx, tagOf(name))
	if err != nil {
		return none, err
	}
	defer body.Close()
	data, err := readBounded(ctx, body, name, maxManifest)
	if err != nil {
		return none, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil || m.ArtifactType != artifactType || len(m.Layers) != 1 || m.Layers[0].Digest.Validate() != nil {
		return none, fail(ErrUntrusted, name, "the artifact %s is not a file of a registry of patches", tagOf(name))
	}
	return m.Layers[0], nil
}

func (a *artifacts) get(ctx context.Context, name string, max int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, maxFetch)
	defer cancel()
	body, err := a.open(ctx, name, max)
	if err != nil {
		return nil, fetchError(ctx, name, err)
	}
	defer body.Close()
	return readBounded(ctx, body, name, max)
}

// put pushes the layer, then the manifest with its tag. OCI registries know no
// conditions.
func (a *artifacts) put(ctx context.Context, name string, data []byte, _ bool) error {
	ctx, cancel := context.WithTimeout(ctx, maxFetch)
	defer cancel()
	return writeError(ctx, name, ociError(a.push(ctx, name, data)))
}

func (a *artifacts) push(ctx context.Context, name string, data []byte) error {
	if err := a.pushEmpty(ctx); err != nil {
		return err
	}
	layer := content.NewDescriptorFromBytes("application/octet-stream", data)
	layer.Annotations = map[string]string{ocispec.AnnotationTitle: name}
	if err := a.repo.Blobs().Push(ctx, layer, bytes.NewReader(data)); err != nil {
		return err
	}
	if len(data) <= maxInline {
		layer.Data = data
	}
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{layer},
		Annotations: map[string]string{ocispec.AnnotationTitle: name},
	}
	m.SchemaVersion = 2
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return a.repo.Manifests().PushReference(ctx, content.NewDescriptorFromBytes(m.MediaType, text), bytes.NewReader(text), tagOf(name))
}

// pushEmpty pushes the configuration that all artifacts have, once.
func (a *artifacts) pushEmpty(ctx context.Context) error {
	a.empty.Lock()
	defer a.empty.Unlock()
	if a.pushed {
		return nil
	}
	config := ocispec.DescriptorEmptyJSON
	// An error may mean that it is not there.
	there, err := a.repo.Blobs().Exists(ctx, config)
	if err != nil || !there {
		err = a.repo.Blobs().Push(ctx, config, bytes.NewReader(config.Data))
	}
	a.pushed = err == nil
	return err
}

// ociError makes a [*statusError] of an answer of the registry.
func ociError(err error) error {
	hideQuery(err)
	var answer *errcode.ErrorResponse
	switch {
	case errors.As(err, &answer):
		s := newStatusError(answer.StatusCode)
		if len(answer.Errors) > 0 {
			s = newStatusError(answer.StatusCode, answer.Errors[0].Code, answer.Errors[0].Message)
		}
		return s
	case errors.Is(err, errdef.ErrNotFound):
		return newStatusError(http.StatusNotFound)
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		s := newStatusError(http.StatusUnauthorized, "there are no credentials for this registry")
		s.denied = true
		return s
	}
	return err
}
