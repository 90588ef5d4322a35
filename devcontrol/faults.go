package main

// Faults that tests switch on. A fault says which calls it is for and what happens to them; the debug listener
// (debug.go) sets and clears them.
//
//	{"method": "POST",               any method when absent
//	 "path": "/api/v1/preauthkey",   exact, or a prefix that ends in *; anything when absent
//	 "nth": 2,                       the first matching call that it is for, counted from 1 (the default)
//	 "count": 3,                     for how many calls from there on; 0 = until it is cleared; default 1
//	 "delaySeconds": 0.5,            wait before acting
//	 "status": 503, "body": "...",   answer this instead of acting; without a body, the API's own kind of error
//	 "loseAnswer": true,             act, then close the connection instead of answering
//	 "stall": true}                  act only once the fault is cleared; open map streams that match fall silent as well
//
// Paths are those of the REST API, of the outer control protocol (/key, /ts2021, /derp) and, inside Noise,
// /machine/register and /machine/map.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

type Fault struct {
	ID           int     `json:"id"`
	Method       string  `json:"method,omitempty"`
	Path         string  `json:"path,omitempty"`
	Nth          int     `json:"nth"`
	Count        *int    `json:"count"`
	DelaySeconds float64 `json:"delaySeconds,omitempty"`
	Status       int     `json:"status,omitempty"`
	Body         string  `json:"body,omitempty"`
	LoseAnswer   bool    `json:"loseAnswer,omitempty"`
	Stall        bool    `json:"stall,omitempty"`
	Seen         int     `json:"seen"` // matching calls so far, and streams that it made fall silent

	cleared chan struct{}
}

type faults struct {
	mu     sync.Mutex
	lastID int
	active []*Fault
}

func newFaults() *faults { return &faults{} }

// set checks the fault, fills in its defaults and switches it on.
func (f *faults) set(fault *Fault) error {
	fault.Nth = cmp.Or(fault.Nth, 1)
	if fault.Count == nil {
		fault.Count = new(1)
	}
	switch {
	case fault.Nth < 1 || *fault.Count < 0 || fault.DelaySeconds < 0:
		return errors.New("cannot set the fault: nth counts from 1, and count and delaySeconds are not negative")
	case fault.Status != 0 && (fault.Status < 200 || fault.Status > 599):
		return fmt.Errorf("cannot set the fault: %d is no status to answer with", fault.Status)
	case fault.Status != 0 && fault.LoseAnswer:
		return errors.New("cannot set the fault: status does not act, loseAnswer does; choose one")
	case fault.DelaySeconds == 0 && fault.Status == 0 && !fault.LoseAnswer && !fault.Stall:
		return errors.New("cannot set the fault: it says nothing of delaySeconds, status, loseAnswer or stall")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastID++
	fault.ID, fault.Seen, fault.cleared = f.lastID, 0, make(chan struct{})
	f.active = append(f.active, fault)
	return nil
}

// clear switches off one fault, or all with id 0; calls that it stalls go on.
func (f *faults) clear(id int) (cleared int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.active = slices.DeleteFunc(f.active, func(fault *Fault) bool {
		if id != 0 && fault.ID != id {
			return false
		}
		close(fault.cleared)
		cleared++
		return true
	})
	return cleared
}

func (f *faults) list() []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]Fault, 0, len(f.active))
	for _, fault := range f.active {
		list = append(list, *fault)
	}
	return list
}

func (fault *Fault) matches(method, path string) bool {
	if fault.Method != "" && fault.Method != method {
		return false
	}
	if prefix, isPrefix := strings.CutSuffix(fault.Path, "*"); isPrefix {
		return strings.HasPrefix(path, prefix)
	}
	return fault.Path == "" || fault.Path == path
}

// take counts the call and returns a copy of the fault that is for it, if there is one.
func (f *faults) take(method, path string) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	var taken *Fault
	for _, fault := range f.active {
		if !fault.matches(method, path) {
			continue
		}
		fault.Seen++
		isDue := fault.Seen >= fault.Nth && (*fault.Count == 0 || fault.Seen < fault.Nth+*fault.Count)
		if isDue && taken == nil {
			taken = new(*fault)
		}
	}
	return taken
}

// wrap puts the faults in front of a handler.
func (f *faults) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault := f.take(r.Method, r.URL.Path)
		if fault == nil {
			next.ServeHTTP(w, r)
			return
		}
		if fault.DelaySeconds > 0 && !wait(r.Context(), time.After(time.Duration(fault.DelaySeconds*float64(time.Second)))) {
			return
		}
		if fault.Stall && !wait(r.Context(), fault.cleared) {
			return
		}
		switch {
		case fault.Status != 0:
			fault.answer(w, r)
		case fault.LoseAnswer:
			next.ServeHTTP(&lostAnswer{header: http.Header{}}, r)
			panic(http.ErrAbortHandler) // net/http closes the connection and logs nothing
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func wait[T any](ctx context.Context, until <-chan T) bool {
	select {
	case <-until:
		return true
	case <-ctx.Done():
		return false
	}
}

func (fault *Fault) answer(w http.ResponseWriter, r *http.Request) {
	switch {
	case fault.Body != "" || !strings.HasPrefix(r.URL.Path, "/api/"):
		http.Error(w, cmp.Or(fault.Body, http.StatusText(fault.Status)), fault.Status)
	case fault.Status == http.StatusUnauthorized:
		writeUnauthorized(w)
	default:
		codes := map[int]int{400: 3, 404: 5, 429: 8, 500: 13, 501: 12, 503: 14, 504: 4}
		writeError(w, &apiError{fault.Status, cmp.Or(codes[fault.Status], 2), "fault: " + http.StatusText(fault.Status)})
	}
}

// waitWhileStalled holds back what a map stream is about to send.
func (f *faults) waitWhileStalled(ctx context.Context) error {
	for {
		f.mu.Lock()
		i := slices.IndexFunc(f.active, func(fault *Fault) bool { return fault.Stall && fault.matches("POST", "/machine/map") })
		if i < 0 {
			f.mu.Unlock()
			return nil
		}
		fault := f.active[i]
		fault.Seen++
		f.mu.Unlock()
		if !wait(ctx, fault.cleared) {
			return ctx.Err()
		}
	}
}

// lostAnswer is where an answer goes that nobody gets.
type lostAnswer struct{ header http.Header }

func (l *lostAnswer) Header() http.Header            { return l.header }
func (l *lostAnswer) Write(data []byte) (int, error) { return len(data), nil }
func (l *lostAnswer) WriteHeader(int)                {}
