package keyvalue

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// forEachKind runs test with a database of each kind: in memory, with a write-ahead log, with a journal.
func forEachKind(t *testing.T, test func(t *testing.T, db *database)) {
	t.Helper()
	for _, tt := range []struct {
		name string
		url  func(t *testing.T) *url.URL
		wal  bool
	}{
		{"memory", func(*testing.T) *url.URL { return &url.URL{Scheme: "file", Opaque: ":memory:"} }, false},
		{"log", fileURL, true},
		{"journal", fileURL, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			db, err := openURL(t.Context(), tt.url(t), tt.wal, maxMemoryBytes)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, db.close()) })
			test(t, db)
		})
	}
}

// fileURL names a database in a folder whose name tries to be more than a name.
func fileURL(t *testing.T) *url.URL {
	dir := filepath.Join(t.TempDir(), "a?mode=memory&b #%2f'c")
	require.NoError(t, os.Mkdir(dir, 0o700))
	return &url.URL{Scheme: "file", Path: filepath.Join(dir, fileName)}
}

func TestDatabase(t *testing.T) {
	t.Parallel()
	forEachKind(t, func(t *testing.T, db *database) {
		ctx := t.Context()
		_, found, err := db.get(ctx, "s", "k")
		require.NoError(t, err)
		require.False(t, found)
		require.NoError(t, db.delete(ctx, "s", "k"))
		keys, err := db.keys(ctx, "s")
		require.NoError(t, err)
		require.Empty(t, keys)

		pairs := map[string]string{
			"k": "v", "": "empty key", "empty value": "", "k\x00": "NUL", "K": "case", "ключ 🔑": "\xff\x00\xfe",
			"%": "'; DROP TABLE spin_key_value; --", "1": "1", "01": "01", strings.Repeat("k", maxKeyBytes): "long",
		}
		for key, value := range pairs {
			require.NoError(t, db.set(ctx, "s", key, []byte("before")))
			require.NoError(t, db.set(ctx, "s", key, []byte(value)))
		}
		require.NoError(t, db.set(ctx, "other", "k", []byte("other")))
		for key, value := range pairs {
			got, found, err := db.get(ctx, "s", key)
			require.NoError(t, err)
			require.True(t, found, "%q", key)
			require.Equal(t, value, string(got), "%q", key)
			found, err = db.exists(ctx, "s", key)
			require.NoError(t, err)
			require.True(t, found, "%q", key)
		}
		keys, err = db.keys(ctx, "s")
		require.NoError(t, err)
		require.Len(t, keys, len(pairs))
		for _, key := range keys {
			require.Contains(t, pairs, key)
		}

		require.NoError(t, db.delete(ctx, "s", "k"))
		found, err = db.exists(ctx, "s", "k")
		require.NoError(t, err)
		require.False(t, found)
		got, found, err := db.get(ctx, "other", "k")
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, "other", string(got))
	})
}

func TestDatabaseLimits(t *testing.T) {
	t.Parallel()
	forEachKind(t, func(t *testing.T, db *database) {
		ctx := t.Context()
		long := strings.Repeat("k", maxKeyBytes+1)
		const tooLong = "a key of 8193 bytes, at most 8192 are supported"
		_, _, err := db.get(ctx, "s", long)
		require.EqualError(t, err, tooLong)
		_, err = db.exists(ctx, "s", long)
		require.EqualError(t, err, tooLong)
		require.EqualError(t, db.set(ctx, "s", long, nil), tooLong)
		require.EqualError(t, db.delete(ctx, "s", long), tooLong)

		value := make([]byte, maxValueBytes+1)
		const tooLarge = "a value of 16777217 bytes, at most 16777216 are supported"
		require.EqualError(t, db.set(ctx, "s", "k", value), tooLarge)
		require.NoError(t, db.set(ctx, "s", "k", value[1:]))
		got, _, err := db.get(ctx, "s", "k")
		require.NoError(t, err)
		require.Len(t, got, maxValueBytes)

		// Another host may have stored a larger one.
		_, err = db.writes.Exec(`INSERT INTO spin_key_value VALUES ('s', 'large', ?)`, value)
		require.NoError(t, err)
		_, _, err = db.get(ctx, "s", "large")
		require.EqualError(t, err, tooLarge)

		// The database is 64 MiB here.
		for i := 0; ; i++ {
			require.Less(t, i, 8)
			if err := db.set(ctx, "s", fmt.Sprint(i), value[1:]); err != nil {
				require.ErrorContains(t, err, "full")
				break
			}
		}
		require.NoError(t, db.delete(ctx, "s", "k"))
		require.NoError(t, db.set(ctx, "s", "again", []byte("v")))
	})
}

func TestKeysAreBounded(t *testing.T) {
	t.Parallel()
	db, err := openDatabase(t.Context(), "")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.close()) })
	tx, err := db.writes.Begin()
	require.NoError(t, err)
	for i := range maxKeysBytes / maxKeyBytes {
		_, err := tx.Exec(`INSERT INTO spin_key_value VALUES ('s', ?, '')`, fmt.Sprintf("%0*d", maxKeyBytes, i))
		require.NoError(t, err)
	}
	require.NoError(t, tx.Commit())
	_, err = db.keys(t.Context(), "s")
	require.EqualError(t, err, "the keys take more than 16777216 bytes, too many to return")
}

func TestContextEndsWaiting(t *testing.T) {
	t.Parallel()
	forEachKind(t, func(t *testing.T, db *database) {
		db.turn <- struct{}{} // somebody commits
		ctx, cancel := context.WithCancel(t.Context())
		set := make(chan error)
		go func() { set <- db.set(ctx, "s", "k", []byte("v")) }()
		cancel()
		require.ErrorIs(t, <-set, context.Canceled)
		require.Empty(t, db.pending)
		<-db.turn
		found, err := db.exists(t.Context(), "s", "k")
		require.NoError(t, err)
		require.False(t, found)

		_, _, err = db.get(ctx, "s", "k")
		require.ErrorIs(t, err, context.Canceled)
		_, err = db.keys(ctx, "s")
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, db.set(t.Context(), "s", "k", []byte("v")))
	})
}

func TestBatches(t *testing.T) {
	t.Parallel()
	forEachKind(t, func(t *testing.T, db *database) {
		batch := func(writes ...*write) {
			for _, w := range writes {
				w.done = make(chan struct{})
			}
			db.pending = writes
			taken := 0
			for len(db.pending) > 0 {
				next := db.take()
				taken += len(next)
				db.commit(next)
			}
			require.Equal(t, len(writes), taken)
			for _, w := range writes {
				<-w.done
			}
		}
		put := func(key string, value any) *write {
			return &write{stmt: db.put, args: []any{"s", key, value}}
		}
		del := &write{stmt: db.del, args: []any{"s", "a"}}
		batch(put("a", "1"), put("b", "1"), del, put("c", "1"), put("b", "2"))
		keys, err := db.keys(t.Context(), "s")
		require.NoError(t, err)
		slices.Sort(keys)
		require.Equal(t, []string{"b", "c"}, keys)
		value, _, err := db.get(t.Context(), "s", "b")
		require.NoError(t, err)
		require.Equal(t, "2", string(value))

		// One that cannot be written is nobody else's error.
		good, bad := put("d", "1"), put("e", nil)
		batch(good, bad)
		require.NoError(t, good.err)
		require.ErrorContains(t, bad.err, "NOT NULL")
		found, err := db.exists(t.Context(), "s", "d")
		require.NoError(t, err)
		require.True(t, found)
	})
}

func TestTakeBoundsABatch(t *testing.T) {
	t.Parallel()
	w := &writer{}
	for _, size := range []int{maxBatchBytes + 1, 1, maxBatchBytes - 1, 1} {
		w.pending = append(w.pending, &write{size: size})
	}
	for _, n := range []int{1, 2, 1, 0} {
		require.Len(t, w.take(), n)
	}
}

func TestHammerDatabase(t *testing.T) {
	t.Parallel()
	forEachKind(t, func(t *testing.T, db *database) {
		const clients, rounds = 64, 20
		var wg sync.WaitGroup
		errs := make(chan error, clients)
		for client := range clients {
			wg.Go(func() { errs <- hammer(t.Context(), db, client, rounds) })
		}
		wg.Wait()
		for range clients {
			require.NoError(t, <-errs)
		}
		keys, err := db.keys(t.Context(), "s")
		require.NoError(t, err)
		require.Len(t, keys, clients)
	})
}

// hammer counts in a key of its own, and is disturbed by a request that ends.
func hammer(ctx context.Context, db *database, client, rounds int) error {
	key := fmt.Sprint(client)
	for n := range rounds {
		value, found, err := db.get(ctx, "s", key)
		if err != nil {
			return err
		}
		if want := fmt.Sprint(n); found != (n > 0) || found && string(value) != want {
			return fmt.Errorf("key %s is %q, want %q", key, value, want)
		}
		if err := db.set(ctx, "s", key, fmt.Append(nil, n+1)); err != nil {
			return err
		}
		ended, cancel := context.WithCancel(ctx)
		go cancel()
		_ = db.set(ended, "s", key, fmt.Append(nil, n+1))
		_, _ = db.exists(ended, "s", key)
	}
	return nil
}

func TestTwoProcessesShareAFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var dbs [2]*database
	var wg sync.WaitGroup
	var errs [2]error
	for i := range dbs {
		wg.Go(func() {
			if dbs[i], errs[i] = openDatabase(t.Context(), dir); errs[i] == nil {
				errs[i] = hammer(t.Context(), dbs[i], i, 50)
			}
		})
	}
	wg.Wait()
	for i, db := range dbs {
		require.NoError(t, errs[i])
		found, err := db.exists(t.Context(), "s", fmt.Sprint(1-i))
		require.NoError(t, err)
		require.True(t, found)
		require.NoError(t, db.close())
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, fileName)}, left)
}

// killed is the environment variable that makes TestKilledProcessLosesNothing the process to kill, which writes
// to the database in that folder and says what it has written.
const killed = "KEYVALUE_TEST_KILLED"

func TestKilledProcessLosesNothing(t *testing.T) {
	if dir := os.Getenv(killed); dir != "" {
		db, err := openDatabase(t.Context(), dir)
		require.NoError(t, err)
		for n := 0; ; n++ {
			require.NoError(t, db.set(t.Context(), "s", fmt.Sprint(n), fmt.Append(nil, n)))
			fmt.Println(n)
		}
	}
	t.Parallel()
	dir := t.TempDir()
	for round := range 3 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledProcessLosesNothing$")
		cmd.Env = append(os.Environ(), killed+"="+dir)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for range 100 * (round + 1) {
			require.True(t, lines.Scan())
		}
		last := lines.Text()
		require.NoError(t, cmd.Process.Kill())
		for lines.Scan() {
			last = lines.Text()
		}
		require.Error(t, cmd.Wait())

		db, err := openDatabase(t.Context(), dir)
		require.NoError(t, err)
		value, found, err := db.get(t.Context(), "s", last)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, last, string(value))
		var check string
		require.NoError(t, db.reads.QueryRow("PRAGMA integrity_check").Scan(&check))
		require.Equal(t, "ok", check)
		require.NoError(t, db.close())
	}
}

func TestStateFolderOfSpin(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := &url.URL{Scheme: "file", Path: filepath.Join(dir, fileName)}
	spin, err := connect(name, url.Values{}, 1)
	require.NoError(t, err)
	_, err = spin.Exec(createTable)
	require.NoError(t, err)
	_, err = spin.Exec(`INSERT INTO spin_key_value VALUES ('default', 'k', 'v')`)
	require.NoError(t, err)
	require.NoError(t, spin.Close())

	db, err := openDatabase(t.Context(), dir)
	require.NoError(t, err)
	value, found, err := db.get(t.Context(), "default", "k")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "v", string(value))
	require.NoError(t, db.set(t.Context(), "default", "k", []byte("w")))
	require.NoError(t, db.close())

	spin, err = connect(name, url.Values{}, 1)
	require.NoError(t, err)
	require.NoError(t, spin.QueryRow(`SELECT value FROM spin_key_value WHERE store = 'default' AND key = 'k'`).Scan(&value))
	require.Equal(t, "w", string(value))
	require.NoError(t, spin.Close())
}

func TestJournalFollowsTheFileSystem(t *testing.T) {
	t.Parallel()
	name := fileURL(t)
	for i, want := range []string{"wal", "delete", "wal"} {
		db, err := openURL(t.Context(), name, want == "wal", maxFileBytes)
		require.NoError(t, err)
		require.NoError(t, db.set(t.Context(), "s", fmt.Sprint(i), []byte("v")))
		var mode string
		require.NoError(t, db.reads.QueryRow("PRAGMA journal_mode").Scan(&mode))
		require.Equal(t, want, mode)
		keys, err := db.keys(t.Context(), "s")
		require.NoError(t, err)
		require.Len(t, keys, i+1)
		require.NoError(t, db.close())
	}
}

func TestOpenDatabaseErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := openDatabase(t.Context(), filepath.Join(dir, "missing"))
	require.ErrorIs(t, err, os.ErrNotExist)

	require.NoError(t, os.WriteFile(filepath.Join(dir, fileName), []byte(strings.Repeat("not a database. ", 100)), 0o600))
	_, err = openDatabase(t.Context(), dir)
	require.ErrorContains(t, err, "file is not a database")

	dir = t.TempDir()
	require.NoError(t, os.Symlink("/dev/null", filepath.Join(dir, fileName)))
	_, err = openDatabase(t.Context(), dir)
	require.ErrorContains(t, err, "unable to open database file", "links are not followed")

	// A table of the same name that is none of Spin's.
	dir = t.TempDir()
	other, err := sql.Open("sqlite", filepath.Join(dir, fileName))
	require.NoError(t, err)
	_, err = other.Exec(`CREATE TABLE spin_key_value (a)`)
	require.NoError(t, err)
	require.NoError(t, other.Close())
	_, err = openDatabase(t.Context(), dir)
	require.ErrorContains(t, err, "no column named store")
}

// unreachable is the environment variable that makes TestFolderWithoutPath the process without a path to its state
// folder; its value is the folder to be "/".
const unreachable = "KEYVALUE_TEST_UNREACHABLE"

// TestFolderWithoutPath uses a state folder as a container does: it is open, but outside of the root.
func TestFolderWithoutPath(t *testing.T) {
	if root := os.Getenv(unreachable); root != "" {
		require.NoError(t, unix.Mount("/proc", filepath.Join(root, "proc"), "", unix.MS_BIND|unix.MS_REC, ""))
		require.NoError(t, unix.Chroot(root))
		require.NoError(t, unix.Chdir("/"))
		db, err := openDatabase(t.Context(), "/proc/self/fd/3")
		require.NoError(t, err)
		require.NoError(t, db.set(t.Context(), "s", "k", []byte("v")))
		value, _, err := db.get(t.Context(), "s", "k")
		require.NoError(t, err)
		require.Equal(t, "v", string(value))
		require.NoError(t, db.close())
		return
	}
	t.Parallel()
	root, dir := t.TempDir(), t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(root, "proc"), 0o755))
	state, err := os.Open(dir)
	require.NoError(t, err)
	defer func() { _ = state.Close() }()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFolderWithoutPath$")
	cmd.Env = append(os.Environ(), unreachable+"="+root)
	cmd.ExtraFiles = []*os.File{state}
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
		if os.Getenv("CI") != "" {
			t.Fatal("no user namespaces: ", err)
		}
		t.Skip("SKIPPED: no user namespaces: ", err)
	}
	require.NoError(t, err, "%s", out)
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, fileName)}, left)
}
