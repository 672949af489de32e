package keyvalue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
)

// fileName is the name of Spin's default database in a state folder.
const fileName = "sqlite_key_value.db"

// createTable makes the table as Spin does, so that each can go on with the file of the other.
const createTable = `CREATE TABLE IF NOT EXISTS spin_key_value (
	store TEXT NOT NULL,
	key TEXT NOT NULL,
	value BLOB NOT NULL,
	PRIMARY KEY (store, key)
)`

// busyTimeout is how long a statement waits for the lock of another process, in ms: a pod that is being replaced
// may share a volume with its successor. A commit takes milliseconds; on a slow disk, a second.
const busyTimeout = 5000

// pageSize is SQLite's; the limit of a database's size is a number of pages.
const pageSize = 4096

// database is a SQLite database with the pairs of all stores. It is safe for concurrent use.
type database struct {
	writer
	// reads is the pool for reading: that of the writer where nobody can read beside one.
	reads            *sql.DB
	one, has, listed *sql.Stmt
}

// openDatabase opens or creates the database in a folder, or one in memory if dir is "".
func openDatabase(ctx context.Context, dir string) (*database, error) {
	if dir == "" {
		return openURL(ctx, &url.URL{Scheme: "file", Opaque: ":memory:"}, false, maxMemoryBytes)
	}
	if err := keepLinks(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	local, err := isLocal(dir)
	if err != nil {
		return nil, err
	}
	return openURL(ctx, &url.URL{Scheme: "file", Path: filepath.Join(dir, fileName)}, local, maxFileBytes)
}

// openURL opens a database by SQLite's name for it; wal says whether to use a write-ahead log.
func openURL(ctx context.Context, name *url.URL, wal bool, maxBytes int64) (*database, error) {
	params := url.Values{
		"_busy_timeout": {fmt.Sprint(busyTimeout)},
		"_synchronous":  {"FULL"}, // what was set is there after a power cut
		"_txlock":       {"immediate"},
		"_defensive":    {"1"}, // what is in the file is not trusted
		"_pragma":       {"trusted_schema(0)", fmt.Sprintf("max_page_count(%d)", maxBytes/pageSize)},
	}
	params.Set("_journal_mode", "DELETE") // which the file may not have: it remembers its last mode
	if wal {
		params.Set("_journal_mode", "WAL")
	}
	db := &database{}
	err := db.open(ctx, name, params, wal)
	if err != nil {
		return nil, errors.Join(err, db.close())
	}
	return db, nil
}

func (db *database) open(ctx context.Context, name *url.URL, params url.Values, wal bool) (err error) {
	if db.writes, err = connect(name, params, 1); err != nil {
		return err
	}
	if _, err = db.writes.ExecContext(ctx, createTable); err != nil {
		return err
	}
	db.reads = db.writes
	if wal {
		params.Set("_query_only", "1")
		if db.reads, err = connect(name, params, runtime.GOMAXPROCS(0)); err != nil {
			return err
		}
	}
	if err = db.prepare(ctx); err != nil {
		return err
	}
	const where = ` FROM spin_key_value WHERE store = ?1`
	for query, stmt := range map[string]**sql.Stmt{
		`SELECT octet_length(value), CASE WHEN octet_length(value) <= ?3 THEN value END` + where + ` AND key = ?2`: &db.one,
		`SELECT EXISTS (SELECT 1` + where + ` AND key = ?2)`:                                                       &db.has,
		`SELECT key` + where: &db.listed,
	} {
		if *stmt, err = db.reads.PrepareContext(ctx, query); err != nil {
			return err
		}
	}
	return nil
}

// close closes the database. What was written is in its file.
func (db *database) close() error {
	var err error
	for _, pool := range []*sql.DB{db.reads, db.writes} {
		if pool != nil {
			err = errors.Join(err, pool.Close())
		}
	}
	return err
}

// get returns the value of a key, if it has one.
func (db *database) get(ctx context.Context, store, key string) (value []byte, found bool, err error) {
	if err := checkKey(key); err != nil {
		return nil, false, err
	}
	var size int64
	err = db.one.QueryRowContext(ctx, store, key, maxValueBytes).Scan(&size, &value)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, false, nil
	case err != nil:
		return nil, false, err
	}
	return value, true, checkValue(size)
}

// exists says whether a key has a value.
func (db *database) exists(ctx context.Context, store, key string) (found bool, err error) {
	if err := checkKey(key); err != nil {
		return false, err
	}
	err = db.has.QueryRowContext(ctx, store, key).Scan(&found)
	return found, err
}

// keys returns the keys that have a value.
func (db *database) keys(ctx context.Context, store string) ([]string, error) {
	rows, err := db.listed.QueryContext(ctx, store)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var keys []string
	size := 0
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return nil, err
		}
		if size += len(key) + keyOverhead; size > maxKeysBytes {
			return nil, fmt.Errorf("the keys take more than %d bytes, too many to return", maxKeysBytes)
		}
		keys = append(keys, key)
	}
	return keys, rows.Err()
}

// set gives a key a value. value is not used after the return.
func (db *database) set(ctx context.Context, store, key string, value []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if err := checkValue(int64(len(value))); err != nil {
		return err
	}
	if value == nil {
		value = []byte{} // nil is NULL
	}
	return db.write(ctx, db.put, len(value), store, key, value)
}

// delete takes a key and its value away, if they are there.
func (db *database) delete(ctx context.Context, store, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	return db.write(ctx, db.del, 0, store, key)
}

func checkKey(key string) error {
	if len(key) > maxKeyBytes {
		return fmt.Errorf("a key of %d bytes, at most %d are supported", len(key), maxKeyBytes)
	}
	return nil
}

func checkValue(size int64) error {
	if size > maxValueBytes {
		return fmt.Errorf("a value of %d bytes, at most %d are supported", size, maxValueBytes)
	}
	return nil
}

// connect returns a pool of at most conns connections, none of which is open yet.
func connect(name *url.URL, params url.Values, conns int) (*sql.DB, error) {
	dsn := *name
	dsn.RawQuery = params.Encode()
	connector, err := sqlite.NewConnector(dsn.String())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// zfsMagic is the type of a ZFS in statfs, which package unix does not know.
const zfsMagic = 0x2fc12fc1

// isLocal says whether dir is on a file system that this machine alone uses. SQLite's write-ahead log needs that:
// its readers and writers share memory.
func isLocal(dir string) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return false, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return slices.Contains([]int64{
		unix.BTRFS_SUPER_MAGIC, unix.EXT4_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.OVERLAYFS_SUPER_MAGIC,
		unix.TMPFS_MAGIC, unix.XFS_SUPER_MAGIC, zfsMagic,
	}, int64(fs.Type)), nil
}
