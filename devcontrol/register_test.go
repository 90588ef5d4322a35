package main

import (
	"strings"
	"testing"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

func TestKeysThatDoNotLetIn(t *testing.T) {
	ts := startServer(t)
	keyID, spent := ts.mint("tag:agent")
	if response := ts.machine("first").register(spent); response.Error != "" {
		t.Fatal(response.Error)
	}
	expiredID, expired := ts.mint("tag:agent")
	ts.api("POST", "/api/v1/preauthkey/expire", `{"id":"`+expiredID+`"}`)
	deletedID, deleted := ts.mint("tag:agent")
	ts.api("DELETE", "/api/v1/preauthkey?id="+deletedID, "")
	neverValid := ts.api("POST", "/api/v1/preauthkey", `{"aclTags":["tag:agent"]}`)["preAuthKey"].(object)
	equal(t, "expiration that was not sent", neverValid["expiration"], any("0001-01-01T00:00:00Z"))
	_, valid := ts.mint("tag:agent")
	for name, test := range map[string]struct{ text, message string }{
		"used":                 {spent, "authkey already used"},
		"expired":              {expired, "authkey expired"},
		"deleted":              {deleted, "invalid pre auth key"},
		"without expiration":   {neverValid["key"].(string), "authkey expired"},
		"unknown":              {"hskey-auth-abcdefghijkl-" + strings.Repeat("x", 64), "invalid pre auth key"},
		"wrong secret":         {valid[:len(valid)-1] + "!", "invalid auth key"},
		"truncated":            {valid[:40], "failed to parse auth-key"},
		"of another kind":      {"tskey-auth-x", "invalid pre auth key"},
		"one with client tags": {valid, "requested tags [tag:relay] are invalid or not permitted"},
	} {
		tags := []string{}
		if name == "one with client tags" {
			tags = append(tags, "tag:relay")
		}
		equal(t, name, ts.machine("x").register(test.text, tags...).Error, test.message)
	}
	used := func(id string) bool {
		for _, listed := range ts.api("GET", "/api/v1/preauthkey", "")["preAuthKeys"].([]any) {
			if listed.(object)["id"] == id {
				return listed.(object)["used"].(bool)
			}
		}
		t.Fatalf("key %s is not listed", id)
		return false
	}
	equal(t, "the spent key is used", used(keyID), true)
	equal(t, "the expired key is used", used(expiredID), false)
	equal(t, "nodes", len(ts.api("GET", "/api/v1/node", "")["nodes"].([]any)), 1)
}

func TestASingleUseKeyLetsInOneOfMany(t *testing.T) {
	ts := startServer(t)
	_, text := ts.mint("tag:agent")
	errs := make(chan string, 8)
	for range cap(errs) {
		m := ts.machine("racer")
		go func() { errs <- m.register(text).Error }()
	}
	joined := 0
	for range cap(errs) {
		if <-errs == "" {
			joined++
		}
	}
	equal(t, "joined", joined, 1)
}

func TestAReusableKey(t *testing.T) {
	ts := startServer(t)
	created := ts.api("POST", "/api/v1/preauthkey", `{"aclTags":["tag:agent"],"reusable":true,"expiration":"`+farFuture+`"}`)["preAuthKey"].(object)
	for range 2 {
		if response := ts.machine("x").register(created["key"].(string)); response.Error != "" {
			t.Error(response.Error)
		}
	}
}

func TestAJoinedNodeDoesNotNeedItsKey(t *testing.T) {
	ts := startServer(t)
	keyID, text := ts.mint("tag:agent", "tag:a-1")
	agent := ts.machine("agent")
	agent.register(text)
	id := ts.idOf(agent)
	equal(t, "the join signal", ts.node(id)["preAuthKey"].(object)["id"], any(keyID))

	ts.api("POST", "/api/v1/preauthkey/expire", `{"id":"`+keyID+`"}`)
	equal(t, "a restart of tailscaled", agent.register("").Error, "")
	equal(t, "up with the expired key", agent.register(text).Error, "")
	equal(t, "the node", ts.idOf(agent), id)
	agent.stream().first()

	ts.api("DELETE", "/api/v1/preauthkey?id="+keyID, "")
	if ts.node(id)["preAuthKey"] == nil {
		t.Error("the key is gone from the node before a restart")
	}
	equal(t, "a restart of tailscaled", agent.register("").Error, "")
	equal(t, "up with the deleted key", agent.register(text).Error, "invalid pre auth key")

	ts = ts.restart()
	equal(t, "the key after a restart", ts.node(id)["preAuthKey"], nil)
	agent.reachAt(ts)
	equal(t, "a restart of tailscaled", agent.register("").Error, "")
}

func TestRegisteringAgainWithAnotherKey(t *testing.T) {
	ts := startServer(t)
	agent := ts.machine("agent")
	id := ts.join(agent, "tag:agent", "tag:a-1")
	otherID, other := ts.mint("tag:agent", "tag:a-2")
	equal(t, "again", agent.register(other).Error, "")
	node := ts.node(id)
	equal(t, "the key id changes", node["preAuthKey"].(object)["id"], any(otherID))
	equalList(t, "the tags stay", strs(node["tags"]), []string{"tag:a-1", "tag:agent"})
	equal(t, "even with a spent key", agent.register(other).Error, "")

	agent.nodeKey = key.NewNode()
	equal(t, "a new node key needs a valid one", agent.register(other).Error, "authkey already used")
	_, third := ts.mint("tag:agent", "tag:a-3")
	equal(t, "and gets in with it", agent.register(third).Error, "")
	equal(t, "the same node", ts.idOf(agent), id)
	equal(t, "with the new node key", ts.node(id)["nodeKey"], any(agent.nodeKey.Public().String()))
}

func TestANodeKeyBelongsToOneMachine(t *testing.T) {
	ts := startServer(t)
	victim, thief := ts.machine("victim"), ts.machine("thief")
	ts.join(victim, "tag:agent")
	thief.nodeKey = victim.nodeKey
	_, text := ts.mint("tag:agent")
	equal(t, "with a key", thief.register(text).Error, "node key already in use by another machine")
	equal(t, "without", thief.register("").Error, "node exists with a different machine key")
}

func TestNames(t *testing.T) {
	ts := startServer(t)
	for _, test := range []struct{ hostname, givenName string }{
		{"base", "base"}, {"base", "base-1"}, {"base", "base-2"}, {"My Box!", "my-box"}, {"", "node"}, {"...", "node-1"},
	} {
		node := ts.node(ts.join(ts.machine(test.hostname), "tag:agent"))
		equal(t, "given name of "+test.hostname, node["givenName"], any(test.givenName))
		equal(t, "name", node["name"], any(test.hostname))
	}
	for _, test := range []struct {
		givenName, hostname string
		follows             bool
	}{{"a", "a", true}, {"a-2", "a", true}, {"a-b", "a", false}, {"ab", "a", false}, {"b", "a", false}, {"a2", "a", false}} {
		equal(t, test.givenName+" named after "+test.hostname, isNamedAfter(test.givenName, test.hostname), test.follows)
	}
}

func TestWithoutAKeyThereIsALoginThatNobodyCanDo(t *testing.T) {
	ts := startServer(t)
	response := ts.machine("x").register("")
	if !strings.HasPrefix(response.AuthURL, ts.url+"/register/") || response.MachineAuthorized {
		t.Errorf("%+v", response)
	}
}

func TestExpiryAndLogout(t *testing.T) {
	ts := startServer(t)
	relay, one, _ := joinThree(ts)
	atRelay, atOne := relay.stream(), one.stream()
	atRelay.first()
	atOne.first()
	ts.api("POST", "/api/v1/node/"+one.id+"/expire", "")
	atOne.next("its own expiry", func(answer *tailcfg.MapResponse) bool { return answer.Node != nil && answer.Node.Expired })
	atRelay.next("the peer's expiry", func(answer *tailcfg.MapResponse) bool {
		peer := hasPeer(answer, one.id)
		return peer != nil && peer.Expired && !peer.KeyExpiry.IsZero()
	})
	equal(t, "still online", ts.node(one.id)["online"], any(true))
	equal(t, "without a key", one.register("").NodeKeyExpired, true)
	_, text := ts.mint("tag:agent")
	equal(t, "with a new one", one.register(text).Error, "")
	ts.api("POST", "/api/v1/node/"+one.id+"/expire?disableExpiry=true", "")
	equal(t, "expiry", ts.node(one.id)["expiry"], nil)
	ts.api("POST", "/api/v1/node/"+one.id+"/expire?expiry="+farFuture, "")
	equal(t, "expiry", ts.node(one.id)["expiry"], any(farFuture))
	ts.refused("POST", "/api/v1/node/"+one.id+"/expire?expiry="+farFuture+"&disableExpiry=true", "", 400, "cannot set both")
	ts.refused("POST", "/api/v1/node/999/expire", "", 500, "node no longer exists in NodeStore: 999")

	ts.api("POST", "/api/v1/node/"+one.id+"/expire?disableExpiry=true", "")
	request := &tailcfg.RegisterRequest{NodeKey: one.nodeKey.Public(), Expiry: time.Unix(123, 0)}
	ts.mu.Lock()
	response, err := ts.register(ts.state, request, one.machine.Public())
	ts.mu.Unlock()
	if err != nil || !response.NodeKeyExpired {
		t.Errorf("logout: %+v %v", response, err)
	}
	if expiry := must(time.Parse(time.RFC3339, ts.node(one.id)["expiry"].(string))); time.Since(expiry).Abs() > time.Hour {
		t.Errorf("logout set the expiry to %s, want now and not what the client sent", expiry)
	}
}

func TestANodeOfAUser(t *testing.T) {
	ts := startServer(t)
	ts.api("POST", "/api/v1/user", `{"name":"alice"}`)
	created := ts.api("POST", "/api/v1/preauthkey", `{"user":"1","expiration":"`+farFuture+`"}`)["preAuthKey"].(object)
	laptop := ts.machine("laptop")
	equal(t, "join", laptop.register(created["key"].(string)).Login.LoginName, "alice")
	id := ts.idOf(laptop)
	equal(t, "user", ts.node(id)["user"].(object)["name"], any("alice"))
	equal(t, "of alice", len(ts.api("GET", "/api/v1/node?user=alice", "")["nodes"].([]any)), 1)
	ts.refused("DELETE", "/api/v1/user/1", "", 500, "user not empty")

	_, tagged := ts.mint("tag:agent")
	equal(t, "again, with a tagged key", laptop.register(tagged).Error, "")
	equal(t, "the same node", ts.idOf(laptop), id)
	equal(t, "is nobody's now", ts.node(id)["user"], nil)
	equalList(t, "and tagged", strs(ts.node(id)["tags"]), []string{"tag:agent"})
	equal(t, "of alice", len(ts.api("GET", "/api/v1/node?user=alice", "")["nodes"].([]any)), 0)
}
