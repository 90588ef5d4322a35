package main

import (
	"slices"
	"strings"
	"testing"

	"tailscale.com/tailcfg"
)

func TestPoliciesThatAreTaken(t *testing.T) {
	for _, test := range []struct {
		name, text string
		allowAll   bool
		rules      int
	}{
		{"ours", ourPolicy, false, 1},
		{"ours as ACLs", `{"tagOwners":{"tag:relay":[],"tag:agent":[]},"acls":[{"action":"accept","proto":"tcp","src":["tag:relay"],"dst":["tag:agent:2138"]}]}`, false, 1},
		{"empty", ``, true, 0},
		{"an empty object", `{}`, true, 0},
		{"null", `null`, true, 0},
		{"tags only", `{"tagOwners":{"tag:a":[]}}`, true, 0},
		{"no grant", `{"grants":[]}`, false, 0},
		{"HuJSON", "// relay\n{\"tagOwners\":{\"tag:a\":[],},\"grants\":[],}", false, 0},
		{"other case", `{"TagOwners":{"tag:a":[]},"GRANTS":[]}`, false, 0},
		{"owners", `{"tagOwners":{"tag:a":["alice@"],"tag:b":["tag:a"]},"grants":[]}`, false, 0},
		{"empty sections", `{"groups":{},"hosts":{},"ssh":[],"tests":[],"grants":[]}`, false, 0},
		{"ports", `{"tagOwners":{"tag:a":[]},"grants":[{"src":["tag:a"],"dst":["tag:a"],"ip":["tcp:1-5","udp:*","80","*"]}]}`, false, 4},
		{"lists of ports", `{"tagOwners":{"tag:a":[]},"acls":[{"action":"accept","src":["tag:a"],"dst":["tag:a:1,2,5-9"]}]}`, false, 3},
		{"no source", `{"tagOwners":{"tag:a":[]},"grants":[{"src":[],"dst":["tag:a"],"ip":["tcp:1"]}]}`, false, 1},
	} {
		policy, err := parsePolicy(test.text)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		equal(t, test.name+" allows all", policy.AllowAll, test.allowAll)
		equal(t, test.name+" rules", len(policy.Rules), test.rules)
	}
}

func TestPoliciesThatAreRefused(t *testing.T) {
	grant := func(fields string) string {
		return `{"tagOwners":{"tag:a":[]},"grants":[{"src":["tag:a"],"dst":["tag:a"],` + fields + `}]}`
	}
	for _, test := range []struct{ text, message string }{
		{`nonsense`, "parsing HuJSON"},
		{`[]`, "parsing policy from bytes"},
		{`{"nosuch":1}`, `unknown field: "nosuch"`},
		{grant(`"ip":["tcp:1"],"foo":1`), `unknown field: "foo"`},
		{`{"grants":[],"grants":[]}`, `duplicate object member name`},
		{`{"tagOwners":{"tag:relay":[]},"grants":[{"src":["tag:relay"],"dst":["tag:agent"],"ip":["tcp:2138"]}]}`, `tag not found: "tag:agent"`},
		{`{"tagOwners":{"tag:a":[]},"acls":[{"action":"accept","src":["tag:b"],"dst":["tag:a:1"]}]}`, `tag not found: "tag:b"`},
		{`{"tagOwners":{"relay":[]}}`, `tag must start with 'tag:'`},
		{grant(`"ip":[]`), "ip and app can not both be empty"},
		{grant(`"ip":["tcp:99999"]`), "port number out of range"},
		{grant(`"ip":["tcp:5-1"]`), "first port is greater"},
		{grant(`"ip":["tcp:x"]`), "not a port number"},
		{grant(`"ip":["icmp:1"]`), "devcontrol cannot enforce"},
		{grant(`"app":{"x":[]}`), "devcontrol cannot enforce"},
		{`{"grants":[{"src":["*"],"dst":["*"],"ip":["*"]}]}`, "devcontrol cannot enforce"},
		{`{"grants":[{"src":["autogroup:member"],"dst":["autogroup:self"],"ip":["*"]}]}`, "devcontrol cannot enforce"},
		{`{"ssh":[{"action":"accept"}],"grants":[]}`, "devcontrol cannot enforce"},
		{`{"groups":{"group:a":["b@"]},"grants":[]}`, "devcontrol cannot enforce"},
		{`{"tagOwners":{"tag:a":["group:x"]},"grants":[]}`, "devcontrol cannot enforce"},
		{`{"tagOwners":{"tag:a":[]},"acls":[{"action":"deny","src":["tag:a"],"dst":["tag:a:1"]}]}`, `action="deny" is not supported`},
		{`{"tagOwners":{"tag:a":[]},"acls":[{"action":"accept","src":["tag:a"],"dst":["tag:a"]}]}`, "no ports after a tag"},
	} {
		_, err := parsePolicy(test.text)
		if err == nil || !strings.Contains(err.Error(), test.message) || !strings.HasPrefix(err.Error(), "parsing policy: ") {
			t.Errorf("%s: %v, want %q", test.text, err, test.message)
		}
	}
}

func TestPolicyCalls(t *testing.T) {
	ts := startServer(t)
	ts.refused("GET", "/api/v1/policy", "", 500, "acl policy not found")
	bad := `{"policy":"{\"nosuch\":1}"}`
	ts.refused("POST", "/api/v1/policy/check", bad, 400, `parsing policy: unknown field: "nosuch"`)
	ts.refused("PUT", "/api/v1/policy", bad, 500, `setting policy: parsing policy: unknown field: "nosuch"`)
	ts.refused("GET", "/api/v1/policy", "", 500, "acl policy not found")
	ts.api("POST", "/api/v1/policy/check", `{"policy":"{\"grants\":[]}"}`)
	ts.refused("GET", "/api/v1/policy", "", 500, "acl policy not found")
	ts.putPolicy(ourPolicy)
	stored := ts.api("GET", "/api/v1/policy", "")
	equal(t, "policy", stored["policy"], any(ourPolicy))
	if stored["updatedAt"] == nil {
		t.Error("no updatedAt")
	}
}

// joinThree joins a relay and two agents with our policy in force.
func joinThree(ts *testServer) (relay, one, two *machine) {
	ts.t.Helper()
	ts.putPolicy(ourPolicy)
	relay, one, two = ts.machine("relay"), ts.machine("one"), ts.machine("two")
	ts.join(relay, "tag:relay")
	ts.join(one, "tag:agent", "tag:a-1")
	ts.join(two, "tag:agent", "tag:a-2")
	return relay, one, two
}

func TestWhoSeesWhomAndWhatMayComeIn(t *testing.T) {
	ts := startServer(t)
	relay, one, two := joinThree(ts)
	operator := ts.machine("operator")
	ts.join(operator, "tag:operator")

	atRelay := relay.stream().first()
	equalList(t, "peers of the relay", ids(atRelay.Peers), []string{one.id, two.id})
	filter := atRelay.PacketFilters["base"]
	if filter == nil || len(filter) != 0 {
		t.Errorf("the relay's filter is %v, want an empty one, which is not nil", filter)
	}

	atOne := one.stream().first()
	equalList(t, "peers of an agent", ids(atOne.Peers), []string{relay.id, operator.id})
	if filter = atOne.PacketFilters["base"]; len(filter) != 1 {
		t.Fatalf("the agent's filter is %v", filter)
	}
	rule := filter[0]
	equalList(t, "protocols", rule.IPProto, []int{6})
	sources := slices.Concat(strs(ts.node(relay.id)["ipAddresses"]), strs(ts.node(operator.id)["ipAddresses"]))
	equalList(t, "sources", rule.SrcIPs, sources)
	for i, address := range strs(ts.node(one.id)["ipAddresses"]) {
		equal(t, "target", rule.DstPorts[i].IP, address)
		equal(t, "ports", rule.DstPorts[i].Ports, tailcfg.PortRange{First: 2138, Last: 2138})
	}
}

func TestWithoutPolicyEverythingIsAllowed(t *testing.T) {
	ts := startServer(t)
	one, two := ts.machine("one"), ts.machine("two")
	ts.join(one, "tag:agent")
	ts.join(two, "tag:agent")
	first := one.stream().first()
	equalList(t, "peers", ids(first.Peers), []string{two.id})
	equal(t, "filter", first.PacketFilters["base"][0].SrcIPs[0], "*")
}

func TestAnEmptyPolicyIsInForceAfterARestart(t *testing.T) {
	ts := startServer(t)
	_, one, _ := joinThree(ts)
	ts.putPolicy("")
	equal(t, "stored", ts.api("GET", "/api/v1/policy", "")["policy"], any(""))
	equal(t, "an agent's peers before the restart", len(one.stream().first().Peers), 1)
	ts = ts.restart()
	one.reachAt(ts)
	equal(t, "an agent's peers after it", len(one.stream().first().Peers), 2)
}

func TestANewPolicyReachesOpenStreams(t *testing.T) {
	ts := startServer(t)
	relay, one, two := joinThree(ts)
	stream := relay.stream()
	stream.first()
	ts.putPolicy(`{"tagOwners":{"tag:agent":[]},"grants":[]}`)
	removed := stream.next("the agents removed", func(answer *tailcfg.MapResponse) bool { return len(answer.PeersRemoved) > 0 })
	equalList(t, "removed", removed.PeersRemoved, []tailcfg.NodeID{must(tailcfgID(one.id)), must(tailcfgID(two.id))})
	ts.putPolicy(ourPolicy)
	back := stream.next("the agents back", func(answer *tailcfg.MapResponse) bool { return len(answer.PeersChanged) > 0 })
	equalList(t, "back", ids(back.PeersChanged), []string{one.id, two.id})
}
