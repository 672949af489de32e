package keyvalue

import (
	"errors"
	"sync"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// keepLinks makes SQLite open databases under the very path that it is given, once per process. By default it
// replaces each symbolic link in a path by its target; but /proc/self/fd/N is no ordinary link: the folder that is
// open there need not have a path in this process's mount namespace, and an app's state folder has none.
//
// SQLite finds links with lstat, which its VFS lets an application replace: stat finds none.
var keepLinks = sync.OnceValue(func() error {
	tls := libc.NewTLS()
	defer tls.Close()
	addr := sqlite3.Xsqlite3_vfs_find(tls, 0)
	if addr == 0 {
		return errors.New("sqlite has no VFS")
	}
	stat, err := libc.CString("stat")
	if err != nil {
		return err
	}
	defer libc.Xfree(tls, stat)
	lstat, err := libc.CString("lstat")
	if err != nil {
		return err
	}
	defer libc.Xfree(tls, lstat)

	// libc memory and the function pointers in it are numbers in Go: they are read as what they point to.
	vfs := *(**sqlite3.Tsqlite3_vfs)(unsafe.Pointer(&addr))
	get := *(*func(tls *libc.TLS, vfs, name uintptr) uintptr)(unsafe.Pointer(&struct{ f uintptr }{vfs.FxGetSystemCall}))
	set := *(*func(tls *libc.TLS, vfs, name, f uintptr) int32)(unsafe.Pointer(&struct{ f uintptr }{vfs.FxSetSystemCall}))
	if code := set(tls, addr, lstat, get(tls, addr, stat)); code != sqlite3.SQLITE_OK {
		return errors.New("sqlite's VFS does not let lstat be replaced")
	}
	return nil
})
