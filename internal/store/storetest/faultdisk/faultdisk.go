// Package faultdisk puts a disk that can fail under SQLite, for tests: a VFS that passes everything on to the real one and asks
// a function first, which may refuse a call, delay it, write it down, or end the process.
package faultdisk

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// An Op is what SQLite asks of the disk.
type Op int

const (
	Write Op = iota
	Sync
	Truncate
	Delete // of a whole file
)

// A Call is one request. Data belongs to SQLite: copy it to keep it.
type Call struct {
	Op     Op
	Path   string
	Offset int64 // of Write; the new size of Truncate
	Data   []byte
}

// Result codes of SQLite that a disk returns.
const (
	Full       = sqlite3.SQLITE_FULL
	WriteError = sqlite3.SQLITE_IOERR_WRITE
	SyncError  = sqlite3.SQLITE_IOERR_FSYNC
)

// A Disk is one VFS.
type Disk struct {
	name string
	ask  atomic.Pointer[func(Call) int32]
}

// SQLite calls plain functions with C pointers, so what they stand for has to be found in tables.
var (
	tables struct {
		sync.Mutex
		disks   map[uintptr]*Disk        // by the VFS's pAppData
		files   map[uintptr]*file        // by sqlite3_file
		methods map[uintptr]*replacement // by the real method table
	}
	real struct {
		once sync.Once
		tls  *libc.TLS
		vfs  uintptr
	}
)

type file struct {
	disk *Disk
	path string
	real *sqlite3.Tsqlite3_io_methods
}

// A replacement is a copy of a method table with some methods exchanged.
type replacement struct {
	real *sqlite3.Tsqlite3_io_methods
	copy uintptr
}

// New registers a disk. It stays until the process ends, as SQLite's registry does.
func New() (*Disk, error) {
	real.once.Do(func() {
		real.tls = libc.NewTLS()
		real.vfs = sqlite3.Xsqlite3_vfs_find(real.tls, 0)
		tables.disks, tables.files, tables.methods = map[uintptr]*Disk{}, map[uintptr]*file{}, map[uintptr]*replacement{}
	})
	tables.Lock()
	defer tables.Unlock()
	handle := uintptr(len(tables.disks) + 1)
	d := &Disk{name: "faultdisk" + string(rune('a'+handle%26)) + string(rune('a'+handle/26%26)) + string(rune('a'+handle/676))}
	name, err := libc.CString(d.name)
	if err != nil {
		return nil, err
	}
	vfs := libc.Xcalloc(real.tls, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_vfs{})))
	v := (*sqlite3.Tsqlite3_vfs)(pointer(vfs))
	*v = *(*sqlite3.Tsqlite3_vfs)(pointer(real.vfs))
	v.FpNext, v.FzName, v.FpAppData = 0, name, handle
	open, remove := openFile, deleteFile
	v.FxOpen = *(*uintptr)(unsafe.Pointer(&open))
	v.FxDelete = *(*uintptr)(unsafe.Pointer(&remove))
	if rc := sqlite3.Xsqlite3_vfs_register(real.tls, vfs, 0); rc != sqlite3.SQLITE_OK {
		return nil, fmt.Errorf("faultdisk: register a VFS: result code %d", rc)
	}
	tables.disks[handle] = d
	return d, nil
}

// Name is the VFS's name, for "?vfs=" in a database's address.
func (d *Disk) Name() string { return d.name }

// Lie is what Ask's function returns for a call that is to do nothing and be called a success.
const Lie int32 = -1

// Ask sets the function that is asked before each call: 0 lets it pass, anything else is the result code that it fails with.
// It may be called from several goroutines. nil lets everything pass.
func (d *Disk) Ask(f func(Call) int32) {
	if f == nil {
		d.ask.Store(nil)
		return
	}
	d.ask.Store(&f)
}

func (d *Disk) allow(c Call) int32 {
	if f := d.ask.Load(); f != nil {
		return (*f)(c)
	}
	return 0
}

// pointer makes a pointer of an address outside Go's memory.
func pointer(address uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&address)) }

// openFile is xOpen: the real file with some methods exchanged.
func openFile(tls *libc.TLS, vfs, name, id uintptr, flags int32, outFlags uintptr) int32 {
	xOpen := (*sqlite3.Tsqlite3_vfs)(pointer(real.vfs)).FxOpen
	rc := (*(*func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32)(unsafe.Pointer(&struct{ uintptr }{xOpen})))(
		tls, real.vfs, name, id, flags, outFlags)
	base := (*sqlite3.Tsqlite3_file)(pointer(id))
	if rc != sqlite3.SQLITE_OK || base.FpMethods == 0 {
		return rc
	}
	tables.Lock()
	defer tables.Unlock()
	r := tables.methods[base.FpMethods]
	if r == nil {
		r = replace(base.FpMethods)
		tables.methods[base.FpMethods] = r
	}
	f := &file{disk: tables.disks[(*sqlite3.Tsqlite3_vfs)(pointer(vfs)).FpAppData], real: r.real}
	if name != 0 {
		f.path = libc.GoString(name)
	}
	tables.files[id] = f
	base.FpMethods = r.copy
	return rc
}

// deleteFile is xDelete.
func deleteFile(tls *libc.TLS, vfs, name uintptr, syncDir int32) int32 {
	tables.Lock()
	disk := tables.disks[(*sqlite3.Tsqlite3_vfs)(pointer(vfs)).FpAppData]
	tables.Unlock()
	if rc := disk.allow(Call{Op: Delete, Path: libc.GoString(name)}); rc != 0 {
		return max(rc, 0)
	}
	xDelete := (*sqlite3.Tsqlite3_vfs)(pointer(real.vfs)).FxDelete
	return (*(*func(*libc.TLS, uintptr, uintptr, int32) int32)(unsafe.Pointer(&struct{ uintptr }{xDelete})))(tls, real.vfs, name, syncDir)
}

// replace copies a method table and exchanges the methods that can lose data.
func replace(methods uintptr) *replacement {
	r := &replacement{real: (*sqlite3.Tsqlite3_io_methods)(pointer(methods))}
	r.copy = libc.Xcalloc(real.tls, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_io_methods{})))
	m := (*sqlite3.Tsqlite3_io_methods)(pointer(r.copy))
	*m = *r.real
	write, sync, truncate, close := writeFile, syncFile, truncateFile, closeFile
	m.FxWrite = *(*uintptr)(unsafe.Pointer(&write))
	m.FxSync = *(*uintptr)(unsafe.Pointer(&sync))
	m.FxTruncate = *(*uintptr)(unsafe.Pointer(&truncate))
	m.FxClose = *(*uintptr)(unsafe.Pointer(&close))
	return r
}

// Open opens a file that is no database's on the disk, for reading and writing, and creates it where there is none.
func (d *Disk) Open(path string) (*File, error) {
	real, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	return &File{real, d}, err
}

// A File is on a disk that can fail.
type File struct {
	*os.File
	disk *Disk
}

// refused returns what a call fails with, and whether it is to be done at all.
func (f *File) refused(c Call) (err error, skip bool) {
	c.Path = f.Name()
	switch rc := f.disk.allow(c); rc {
	case 0, Lie:
		return nil, rc == Lie
	case Full:
		return syscall.ENOSPC, true
	default:
		return syscall.EIO, true
	}
}

// WriteAt writes, unless the disk refuses.
func (f *File) WriteAt(b []byte, offset int64) (int, error) {
	if err, skip := f.refused(Call{Op: Write, Offset: offset, Data: b}); err != nil || skip {
		return len(b), err
	}
	return f.File.WriteAt(b, offset)
}

// Sync syncs, unless the disk refuses.
func (f *File) Sync() error {
	if err, skip := f.refused(Call{Op: Sync}); err != nil || skip {
		return err
	}
	return f.File.Sync()
}

// Truncate cuts, unless the disk refuses.
func (f *File) Truncate(size int64) error {
	if err, skip := f.refused(Call{Op: Truncate, Offset: size}); err != nil || skip {
		return err
	}
	return f.File.Truncate(size)
}

func find(id uintptr) *file {
	tables.Lock()
	defer tables.Unlock()
	return tables.files[id]
}

func writeFile(tls *libc.TLS, id, data uintptr, size int32, offset int64) int32 {
	f := find(id)
	if rc := f.disk.allow(Call{Write, f.path, offset, unsafe.Slice((*byte)(pointer(data)), size)}); rc != 0 {
		return max(rc, 0)
	}
	return (*(*func(*libc.TLS, uintptr, uintptr, int32, int64) int32)(unsafe.Pointer(&struct{ uintptr }{f.real.FxWrite})))(tls, id, data, size, offset)
}

func syncFile(tls *libc.TLS, id uintptr, flags int32) int32 {
	f := find(id)
	if rc := f.disk.allow(Call{Op: Sync, Path: f.path}); rc != 0 {
		return max(rc, 0)
	}
	return (*(*func(*libc.TLS, uintptr, int32) int32)(unsafe.Pointer(&struct{ uintptr }{f.real.FxSync})))(tls, id, flags)
}

func truncateFile(tls *libc.TLS, id uintptr, size int64) int32 {
	f := find(id)
	if rc := f.disk.allow(Call{Op: Truncate, Path: f.path, Offset: size}); rc != 0 {
		return max(rc, 0)
	}
	return (*(*func(*libc.TLS, uintptr, int64) int32)(unsafe.Pointer(&struct{ uintptr }{f.real.FxTruncate})))(tls, id, size)
}

func closeFile(tls *libc.TLS, id uintptr) int32 {
	f := find(id)
	rc := (*(*func(*libc.TLS, uintptr) int32)(unsafe.Pointer(&struct{ uintptr }{f.real.FxClose})))(tls, id)
	tables.Lock()
	defer tables.Unlock()
	delete(tables.files, id)
	return rc
}
