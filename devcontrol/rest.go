package main

// The part of Headscale's v1 REST API that elizacloud uses: routing, decoding and errors. The calls are in rest_*.go.
//
// Errors are {code, message, details}, the code being gRPC's. Headscale answers most of its own errors with 500.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"runtime"
	"strconv"
)

// maxAPIBody is what gRPC takes in one message.
const maxAPIBody = 4 << 20

// apiError is an answer that is not 200.
type apiError struct {
	status, code int
	message      string
}

func (e *apiError) Error() string { return e.message }

func failed(message string) error   { return &apiError{http.StatusInternalServerError, 2, message} }
func internal(message string) error { return &apiError{http.StatusInternalServerError, 13, message} }
func invalid(message string) error  { return &apiError{http.StatusBadRequest, 3, message} }
func notFound(message string) error { return &apiError{http.StatusNotFound, 5, message} }
func notServed(message string) error {
	return &apiError{http.StatusNotImplemented, 12, message}
}

var errUnknownNode = notFound("node not found")

// call answers one request: with what it returns as JSON, or with its error.
type call func(r *http.Request) (any, error)

func (c call) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxAPIBody)
	answer, err := c(r)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

// byMethod is what a path answers to. Any other method is 501, as in grpc-gateway.
type byMethod map[string]call

func (calls byMethod) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if c := calls[r.Method]; c != nil {
		c.ServeHTTP(w, r)
		return
	}
	writeError(w, notServed("Method Not Allowed"))
}

// api routes the calls.
func (s *Server) api() http.Handler {
	mux := http.NewServeMux()
	for path, calls := range map[string]byMethod{
		"/health":                {"GET": s.getHealth},
		"/user":                  {"GET": s.listUsers, "POST": s.createUser},
		"/user/{id}":             {"DELETE": s.deleteUser},
		"/preauthkey":            {"GET": s.listAuthKeys, "POST": s.createAuthKey, "DELETE": s.deleteAuthKey},
		"/preauthkey/expire":     {"POST": s.expireAuthKey},
		"/node":                  {"GET": s.listNodes},
		"/node/{node_id}":        {"GET": s.getNode, "DELETE": s.deleteNodeCall},
		"/node/{node_id}/expire": {"POST": s.expireNode},
		"/node/{node_id}/tags":   {"POST": s.setNodeTags},
		"/policy":                {"GET": s.getPolicy, "PUT": s.putPolicy},
		"/policy/check":          {"POST": s.checkPolicy},
		"/apikey":                {"GET": s.listAPIKeys, "POST": s.createAPIKey},
		"/apikey/expire":         {"POST": s.expireAPIKey},
		"/apikey/{prefix}":       {"DELETE": s.deleteAPIKey},
	} {
		mux.Handle("/api/v1"+path, calls)
	}
	mux.Handle("/", call(func(*http.Request) (any, error) { return nil, notFound("Not Found") }))
	return mux
}

// servePublic serves what needs no API key.
func (s *Server) servePublic(mux *http.ServeMux) {
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/health+json; charset=utf-8")
		json.NewEncoder(w).Encode(map[string]string{"status": "pass"})
	})
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{
			"version": Version, "commit": "unknown", "buildTime": "unknown", "dirty": false,
			"go": map[string]string{"version": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH},
		})
	})
}

func (s *Server) getHealth(*http.Request) (any, error) {
	return map[string]bool{"databaseConnectivity": true}, nil
}

// decode reads a JSON body; unknown fields are ignored and an empty body is an empty object.
func decode(r *http.Request, into any) error {
	err := json.NewDecoder(r.Body).Decode(into)
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return nil
	case errors.As(err, &tooLarge):
		return &apiError{http.StatusTooManyRequests, 8, fmt.Sprintf("received message larger than max (%d)", maxAPIBody)}
	}
	return invalid(err.Error())
}

func pathID(r *http.Request, name string) (ID, error) {
	id, err := strconv.ParseUint(r.PathValue(name), 10, 64)
	if err != nil {
		return 0, invalid("type mismatch, parameter: " + name + ", error: " + err.Error())
	}
	return ID(id), nil
}

// queryID returns 0 when the query has no such field.
func queryID(r *http.Request, name string) (ID, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return 0, nil
	}
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, invalid(fmt.Sprintf("parsing field %q: %v", name, err))
	}
	return ID(id), nil
}

func writeError(w http.ResponseWriter, err error) {
	var known *apiError
	if !errors.As(err, &known) {
		log.Print(err)
		known = &apiError{http.StatusInternalServerError, 2, err.Error()}
	}
	writeJSON(w, known.status, struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Details []any  `json:"details"`
	}{known.code, known.message, []any{}})
}

func writeJSON(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.Encode(answer)
}
