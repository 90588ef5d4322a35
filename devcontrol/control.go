package main

// The control protocol's outer shell: the server's public key, and the Noise connection that everything else of it
// goes through. A node is who the Noise handshake proves it is: its machine key.

import (
	"context"
	"encoding/json"
	"log"
	"net/http"

	"golang.org/x/net/http2"
	"tailscale.com/control/controlhttp/controlhttpserver"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// Headscale's own limits (hscontrol/noise.go and hscontrol/capver, v0.29.2).
const (
	maxControlBody    = 1 << 20
	minimumCapability = 113 // Tailscale 1.80
)

func (s *Server) serveControl(ctx context.Context, mux *http.ServeMux) {
	mux.HandleFunc("GET /key", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("v") == "" {
			http.Error(w, "capability version must be set", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(tailcfg.OverTLSPublicKeyResponse{PublicKey: s.state.NoiseKey.Public()})
	})
	mux.HandleFunc("/ts2021", func(w http.ResponseWriter, r *http.Request) {
		conn, err := controlhttpserver.AcceptHTTP(r.Context(), w, r, s.state.NoiseKey, nil)
		if err != nil { // AcceptHTTP has answered
			log.Printf("no Noise connection with %s: %v", r.RemoteAddr, err)
			return
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		(&http2.Server{}).ServeConn(conn, &http2.ServeConnOpts{
			Context:    ctx,
			BaseConfig: &http.Server{},
			Handler:    s.faults.wrap(s.machineHandler(conn.Peer())),
		})
	})
	mux.HandleFunc("GET /register/{id}", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "devcontrol has no interactive login: join with a pre-auth key", http.StatusNotImplemented)
	})
}

// machineHandler serves one machine, inside its Noise connection.
func (s *Server) machineHandler(machine key.MachinePublic) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /machine/register", func(w http.ResponseWriter, r *http.Request) { s.handleRegister(w, r, machine) })
	mux.HandleFunc("POST /machine/map", func(w http.ResponseWriter, r *http.Request) { s.handleMap(w, r, machine) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "Not implemented yet", http.StatusNotImplemented)
	})
	return http.MaxBytesHandler(mux, maxControlBody)
}

// isTooOld refuses a client that Headscale refuses, and says whether it did.
func isTooOld(w http.ResponseWriter, version tailcfg.CapabilityVersion) bool {
	if version >= minimumCapability {
		return false
	}
	http.Error(w, "unsupported client version", http.StatusBadRequest)
	return true
}
