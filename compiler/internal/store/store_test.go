package store

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/fother/fother/specs"
)

func TestStore(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Put(strings.NewReader("text"))
	if err != nil || d != specs.DigestOf([]byte("text")) {
		t.Fatalf("digest %v, %v", d, err)
	}
	again, err := s.PutSeeker(strings.NewReader("text"))
	if err != nil || again != d {
		t.Errorf("digest %v, %v", again, err)
	}
	if data, err := os.ReadFile(s.Blob(d)); err != nil || string(data) != "text" {
		t.Errorf("blob %q, %v", data, err)
	}
	if left, _ := os.ReadDir(filepath.Join(s.Dir(), "tmp")); len(left) != 0 {
		t.Errorf("%d temporary files are left", len(left))
	}
}

func TestRecordsInOrder(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Begin(specs.StageOriginal); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "c"} {
		if err := s.PutRecord(specs.StageOriginal, &Record{Dir: name, Link: &Link{}}); err != nil {
			t.Fatal(err)
		}
	}
	records, err := s.Records(specs.StageOriginal)
	if err != nil || len(records) != 3 || records[0].Dir != "a" || records[2].Dir != "c" {
		t.Errorf("%v, %v", records, err)
	}
	if err := s.Begin(specs.StageOriginal); err != nil {
		t.Fatal(err)
	}
	if records, err := s.Records(specs.StageOriginal); err != nil || len(records) != 0 {
		t.Errorf("%d records after Begin, %v", len(records), err)
	}
}

func TestConcurrentPut(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("0123456789", 100_000)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			d, err := s.Put(strings.NewReader(text))
			if err != nil {
				t.Error(err)
				return
			}
			if got, err := DigestFile(s.Blob(d)); err != nil || got != d {
				t.Errorf("blob is %v, %v", got, err)
			}
		})
	}
	wg.Wait()
}

func TestErrorNamesStore(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.Dir(), "tmp")); err != nil {
		t.Fatal(err)
	}
	_, err = s.Put(strings.NewReader("x"))
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(err.Error(), s.Dir()) {
		t.Errorf("error %v", err)
	}
	// A file that is not there is no fault of the store's.
	if _, err := s.PutFile("/nowhere"); err == nil || errors.As(err, &e) {
		t.Errorf("error %v", err)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	for _, r := range []*Record{{Assembly: &Assembly{Source: "x"}}, {Link: &Link{Inputs: []Input{{Path: "x"}}}}} {
		data, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRecord(data)
		if err == nil && (r.Assembly == nil) == (r.Link == nil) {
			t.Error("a record of nothing")
		}
	})
}
