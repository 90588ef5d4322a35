package main

// The embedded DERP relay and STUN server, on IPv4 and on IPv6: on a host with IPv6, a client whose STUN probe there
// cannot be answered waits three seconds for it at every join.

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"

	"tailscale.com/derp/derpserver"
	"tailscale.com/tailcfg"
)

const derpRegion = 999 // the number that Headscale gives its own

// newDERPMap describes ourselves as the only region. Clients reach DERP where they reach the server, without TLS unless
// the URL has it: tailscaled needs TS_DEBUG_USE_DERP_HTTP=1 then.
func newDERPMap(serverURL *url.URL, v4, v6 netip.Addr, stunPort int) *tailcfg.DERPMap {
	port, _ := strconv.Atoi(serverURL.Port())
	if port == 0 {
		port = map[string]int{"http": 80, "https": 443}[serverURL.Scheme]
	}
	node := &tailcfg.DERPNode{
		Name:     strconv.Itoa(derpRegion),
		RegionID: derpRegion,
		HostName: serverURL.Hostname(),
		DERPPort: port,
		IPv4:     v4.String(),
		IPv6:     "none",
		STUNPort: stunPort,
	}
	if v6.IsValid() {
		node.IPv6 = v6.String()
	}
	return &tailcfg.DERPMap{
		OmitDefaultRegions: true,
		Regions: map[int]*tailcfg.DERPRegion{
			derpRegion: {RegionID: derpRegion, RegionCode: "dev", RegionName: "devcontrol", Nodes: []*tailcfg.DERPNode{node}},
		},
	}
}

func (s *Server) serveDERP(mux *http.ServeMux) {
	mux.Handle("/derp", derpserver.Handler(s.derp))
	mux.HandleFunc("/derp/probe", derpserver.ProbeHandler)
	mux.HandleFunc("/derp/latency-check", derpserver.ProbeHandler)
	mux.HandleFunc("GET /generate_204", derpserver.ServeNoContent)
	mux.HandleFunc("POST /verify", s.verifyDERPClient)
}

// verifyDERPClient answers the DERP server, which asks before it relays for a client: our nodes only.
func (s *Server) verifyDERPClient(w http.ResponseWriter, r *http.Request) {
	var request tailcfg.DERPAdmitClientRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&request); err != nil {
		http.Error(w, "Bad Request: invalid JSON", http.StatusBadRequest)
		return
	}
	allow := false
	s.view(func(state *State) { allow = state.nodeByKey(request.NodePublic) != nil })
	writeJSON(w, http.StatusOK, tailcfg.DERPAdmitClientResponse{Allow: allow})
}
