package keyvalue

import (
	"context"
	"database/sql"
	"slices"
	"sync"
)

// maxBatchBytes bounds the values that are committed together; one value may be larger.
const maxBatchBytes = 4 << 20

// writer commits to a database. A commit waits for the disk, and only one can be under way: what is written
// meanwhile is committed together by whoever comes next.
type writer struct {
	writes   *sql.DB // of one connection
	put, del *sql.Stmt
	turn     chan struct{} // full while a commit is under way

	mu      sync.Mutex
	pending []*write // guarded by mu; in order
}

// write is a write that somebody waits for.
type write struct {
	stmt *sql.Stmt
	size int
	args []any
	done chan struct{} // closed when err is set
	err  error
}

// prepare makes the writer ready, whose writes is open and has the table.
func (w *writer) prepare(ctx context.Context) (err error) {
	w.turn = make(chan struct{}, 1)
	w.put, err = w.writes.PrepareContext(ctx, `INSERT INTO spin_key_value (store, key, value) VALUES (?1, ?2, ?3)
		ON CONFLICT (store, key) DO UPDATE SET value = excluded.value`)
	if err != nil {
		return err
	}
	w.del, err = w.writes.PrepareContext(ctx, `DELETE FROM spin_key_value WHERE store = ?1 AND key = ?2`)
	return err
}

// write runs a statement and commits it. If ctx ends before its turn has come, it does not run. args are not used
// after the return; size is how many bytes they are.
func (w *writer) write(ctx context.Context, stmt *sql.Stmt, size int, args ...any) error {
	own := &write{stmt: stmt, size: size, args: args, done: make(chan struct{})}
	w.mu.Lock()
	w.pending = append(w.pending, own)
	w.mu.Unlock()
	for {
		select {
		case <-own.done:
			return own.err
		case w.turn <- struct{}{}:
			w.commit(w.take())
			<-w.turn
		case <-ctx.Done():
			if w.withdraw(own) {
				return ctx.Err()
			}
			<-own.done // it is being committed: args are in use
			return own.err
		}
	}
}

// take takes the next batch out of what is pending.
func (w *writer) take() []*write {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, size := 0, 0
	for n < len(w.pending) && (n == 0 || size+w.pending[n].size <= maxBatchBytes) {
		size += w.pending[n].size
		n++
	}
	batch := w.pending[:n:n]
	w.pending = w.pending[n:]
	return batch
}

// withdraw takes own out of what is pending, and says whether it was there.
func (w *writer) withdraw(own *write) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.Index(w.pending, own)
	if i < 0 {
		return false
	}
	w.pending = slices.Delete(w.pending, i, i+1)
	return true
}

// commit commits a batch: together if that is possible, else each of it for itself, so that one that does not fit
// is no fault of the others.
func (w *writer) commit(batch []*write) {
	err := w.commitAll(batch)
	for _, own := range batch {
		if err != nil && len(batch) > 1 {
			own.err = w.commitAll([]*write{own})
		} else {
			own.err = err
		}
		close(own.done)
	}
}

// commitAll commits all of a batch or nothing. It waits as long as busyTimeout allows, and not for the context of
// a request: the writes of others are in it.
func (w *writer) commitAll(batch []*write) error {
	if len(batch) == 0 {
		return nil
	}
	if len(batch) == 1 {
		_, err := batch[0].stmt.Exec(batch[0].args...)
		return err
	}
	tx, err := w.writes.Begin()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after a commit
	for _, own := range batch {
		if _, err := tx.Stmt(own.stmt).Exec(own.args...); err != nil {
			return err
		}
	}
	return tx.Commit()
}
