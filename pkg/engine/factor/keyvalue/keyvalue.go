// Package keyvalue gives components Spin's key-value stores: fermyon:spin/key-value.
//
// The one store there is, "default", is a table of a SQLite database in the app's state folder, of the form that
// Spin gives it. Package files: keyvalue.go is the interface, database.go the pairs and how they are read,
// writer.go how writes are committed, sqlite_unsafe.go makes SQLite open a folder that has no path. See "Why
// modernc.org/sqlite for key-value?" in RATIONALE.md, and what follows there.
package keyvalue

import (
	"context"
	"fmt"
	"slices"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/factor"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
)

// defaultStore is the label of the store that exists without being configured.
const defaultStore = "default"

// What a guest may ask for. The host holds keys and values besides the guest while it passes them on.
const (
	// maxKeyBytes is above what other backends of Spin take: 2 KiB in DynamoDB, 1 KiB in Azure Cosmos DB.
	maxKeyBytes = 8 << 10
	// maxValueBytes too: 400 KiB and 2 MiB.
	maxValueBytes = 16 << 20
	// maxKeysBytes bounds the keys that get-keys returns, each with keyOverhead for its place in the list.
	maxKeysBytes = 16 << 20
	keyOverhead  = 16
	// maxOpenStores bounds the stores that one instance has open. There is no reason for more than one.
	maxOpenStores = 1024
)

// The size of a database. The node's disk is shared with others.
const (
	maxFileBytes   = 1 << 30
	maxMemoryBytes = 64 << 20
)

// Store is the resource type of stores.
var Store = engine.NewResource("store", func(rep any) { rep.(*store).close() })

// The cases of fermyon:spin/key-value.error. The one left out, no-such-store, cannot happen: a component with a
// store that does not exist is not linked.
const (
	errorStoreTableFull = 0
	errorAccessDenied   = 2
	errorOther          = 3
)

// Config says where the stores of an app are.
type Config struct {
	// Dir is the app's state folder; it may be a path below /proc/self/fd. The stores are in memory, and end with
	// the process, if it is "".
	Dir string
}

// Stores are the key-value stores of one app. They are safe for concurrent use.
type Stores struct {
	dir string
	// opening holds the database, or nil before its first use. Who opens it takes it out.
	opening chan *database
}

var _ factor.Factor = (*Stores)(nil)

// New returns the stores of an app. The database is not opened before a guest opens a store.
func New(_ *lockedapp.App, cfg Config) (*Stores, error) {
	s := &Stores{dir: cfg.Dir, opening: make(chan *database, 1)}
	s.opening <- nil
	return s, nil
}

// Link defines fermyon:spin/key-value with the stores of component c.
func (s *Stores) Link(l *engine.Linker, c *lockedapp.Component) error {
	for _, label := range c.Metadata.KeyValueStores {
		if label != defaultStore {
			return fmt.Errorf("key-value store %.100q: only %q is supported", label, defaultStore)
		}
	}
	granted := slices.Contains(c.Metadata.KeyValueStores, defaultStore)
	open := engine.NewSlot(l, func(*engine.Instance) *int { return new(int) })
	l.Define(engine.Interface{Type: keyValueType(), Funcs: map[string]engine.HostFunc{
		"[static]store.open": func(c *engine.Call) error {
			label := c.String()
			if !granted || label != defaultStore {
				c.PutErr()
				c.PutCase(errorAccessDenied)
				return nil
			}
			return s.open(c, open.Of(c.Instance()))
		},
		"[method]store.get":      get,
		"[method]store.set":      set,
		"[method]store.delete":   del,
		"[method]store.exists":   exists,
		"[method]store.get-keys": getKeys,
	}})
	return nil
}

// Close closes the database.
func (s *Stores) Close() error {
	db := <-s.opening
	if db == nil {
		return nil
	}
	return db.close()
}

// database returns the database and opens it if it is not open yet.
func (s *Stores) database(ctx context.Context) (*database, error) {
	select {
	case db := <-s.opening:
		var err error
		if db == nil {
			db, err = openDatabase(ctx, s.dir)
		}
		s.opening <- db
		return db, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// store is a store that a guest has open.
type store struct {
	*database
	open *int // how many its instance has
}

func (s *store) close() { *s.open-- }

// open opens the default store for an instance that has count open.
func (s *Stores) open(c *engine.Call, count *int) error {
	if *count >= maxOpenStores {
		c.PutErr()
		c.PutCase(errorStoreTableFull)
		return nil
	}
	db, err := s.database(c.Context())
	if err != nil {
		return putError(c, fmt.Errorf("open key-value store: %w", err))
	}
	*count++
	c.PutOk()
	c.PutOwn(&store{db, count})
	return nil
}

func get(c *engine.Call) error {
	db, key := engine.Rep[*store](c), c.String()
	value, found, err := db.get(c.Context(), defaultStore, key)
	if err != nil {
		return putError(c, err)
	}
	c.PutOk()
	if !found {
		c.PutNone()
		return nil
	}
	c.PutSome()
	c.PutBytes(value)
	return nil
}

func set(c *engine.Call) error {
	db, key, value := engine.Rep[*store](c), c.String(), c.Bytes()
	return putDone(c, db.set(c.Context(), defaultStore, key, value))
}

func del(c *engine.Call) error {
	db, key := engine.Rep[*store](c), c.String()
	return putDone(c, db.delete(c.Context(), defaultStore, key))
}

func exists(c *engine.Call) error {
	db, key := engine.Rep[*store](c), c.String()
	found, err := db.exists(c.Context(), defaultStore, key)
	if err != nil {
		return putError(c, err)
	}
	c.PutOk()
	c.PutBool(found)
	return nil
}

func getKeys(c *engine.Call) error {
	keys, err := engine.Rep[*store](c).keys(c.Context(), defaultStore)
	if err != nil {
		return putError(c, err)
	}
	c.PutOk()
	c.PutList(len(keys))
	for _, key := range keys {
		c.PutString(key)
	}
	return nil
}

// putDone puts the result of a function that returns nothing.
func putDone(c *engine.Call, err error) error {
	if err != nil {
		return putError(c, err)
	}
	c.PutOk()
	return nil
}

// putError puts what went wrong. If the request has ended, so does its instance.
func putError(c *engine.Call, err error) error {
	if ended := c.Context().Err(); ended != nil {
		return ended
	}
	c.PutErr()
	c.PutCase(errorOther)
	c.PutString(err.Error())
	return nil
}
