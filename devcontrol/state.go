package main

// What outlives a restart, and how it gets to disk: one JSON file, replaced atomically.
//
// Changes that arrive while a write is under way share the next one, so a slow disk delays a burst of calls once and
// not once a call.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

const stateFormat = 1

// State is everything that the server knows. Its fields are guarded by Server.mu.
type State struct {
	Format   int
	NoiseKey key.MachinePrivate
	DERPKey  key.NodePrivate
	Policy   *StoredPolicy // nil until one is put
	Users    map[ID]*User
	AuthKeys map[ID]*AuthKey
	APIKeys  map[ID]*APIKey
	Nodes    map[ID]*Node
	LastID   struct{ User, AuthKey, APIKey, Node ID } // ids are never used twice, also not after a delete
}

type StoredPolicy struct {
	Data      string
	UpdatedAt time.Time
}

type User struct {
	ID                                      ID
	Name, DisplayName, Email, ProfilePicURL string
	CreatedAt                               time.Time
}

// AuthKey is a pre-auth key. The value itself is never kept.
type AuthKey struct {
	ID         ID
	Prefix     string
	Hash       []byte
	UserID     ID // 0: owned by its tags alone
	Tags       []string
	Reusable   bool
	Used       bool
	Expiration time.Time // the zero time when the caller sent none: expired from the start, as in Headscale
	CreatedAt  time.Time
}

type APIKey struct {
	ID         ID
	Prefix     string
	Hash       []byte
	Expiration time.Time
	CreatedAt  time.Time
}

// Node is a machine on the tailnet. A tagged one has no user.
type Node struct {
	ID         ID
	MachineKey key.MachinePublic
	NodeKey    key.NodePublic
	DiscoKey   key.DiscoPublic
	Hostname   string // as the machine says it
	GivenName  string // unique on the tailnet
	UserID     ID
	Tags       []string
	AuthKeyID  ID // of the key that it registered with last, which may be deleted since
	IPv4, IPv6 netip.Addr
	Endpoints  []netip.AddrPort
	Hostinfo   *tailcfg.Hostinfo // replaced, never changed in place: netmaps that are being sent share it
	CreatedAt  time.Time
	LastSeen   time.Time
	Expiry     *time.Time

	// authKey is the key as it was when the node registered. Headscale shows this copy until it restarts, even when
	// the key was expired or deleted since.
	authKey  *AuthKey
	online   bool
	sessions int // open map streams, counting those in their offline grace
}

func newState() *State {
	return &State{
		Format:   stateFormat,
		NoiseKey: key.NewMachine(),
		DERPKey:  key.NewNode(),
		Users:    map[ID]*User{},
		AuthKeys: map[ID]*AuthKey{},
		APIKeys:  map[ID]*APIKey{},
		Nodes:    map[ID]*Node{},
	}
}

// loadState reads the file, or makes a new state when there is none yet.
func loadState(path string) (*State, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newState(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the state: %w", err)
	}
	state := newState()
	if err := json.Unmarshal(data, state); err != nil {
		return nil, fmt.Errorf("cannot read %s: it is not a whole state file (%w); restore it, or move it away to start with an empty tailnet", path, err)
	}
	if state.Format != stateFormat {
		return nil, fmt.Errorf("cannot read %s: it has format %d and this devcontrol knows %d; use the devcontrol that wrote it", path, state.Format, stateFormat)
	}
	for _, node := range state.Nodes {
		if authKey := state.AuthKeys[node.AuthKeyID]; authKey != nil {
			node.authKey = new(*authKey)
		}
	}
	return state, nil
}

// lockStateDir makes sure that one server at a time uses the directory; the lock ends with the process.
func lockStateDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the state directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the state directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("cannot use %s: another devcontrol is running on it; stop it, or name another --state-dir", dir)
	}
	return lock, nil
}

// saver writes the newest state whenever asked, one write at a time.
type saver struct {
	write func() (revision uint64, err error) // writes the newest state and says which revision that was

	mu      sync.Mutex
	written *sync.Cond
	asked   uint64
	tried   uint64
	err     error // of the newest write; since each write is of everything, a later success mends an earlier failure
}

func newSaver(write func() (uint64, error)) *saver {
	s := &saver{write: write}
	s.written = sync.NewCond(&s.mu)
	return s
}

// ask has the revision written soon.
func (s *saver) ask(revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := s.asked == s.tried
	s.asked = max(s.asked, revision)
	if idle && s.asked > s.tried {
		go s.run()
	}
}

// wait returns when the revision is on disk, or could not be written.
func (s *saver) wait(revision uint64) error {
	s.ask(revision)
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.tried < revision {
		s.written.Wait()
	}
	return s.err
}

func (s *saver) run() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.tried < s.asked {
		s.mu.Unlock()
		revision, err := s.write()
		if err != nil {
			log.Print(err) // not everybody waits for it
		}
		s.mu.Lock()
		s.tried, s.err = revision, err
		s.asked = max(s.asked, revision)
		s.written.Broadcast()
	}
}

// replaceFile writes the file so that a crash at any moment leaves the old content or the new one, never a part.
func replaceFile(path string, data []byte) (err error) {
	temporary := path + ".new"
	file, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		os.Remove(temporary)
		return err
	}
	return os.Rename(temporary, path)
}
