package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestStateOutlivesARestart(t *testing.T) {
	ts := startServer(t)
	ts.putPolicy(ourPolicy)
	user := ts.api("POST", "/api/v1/user", `{"name":"alice"}`)["user"].(object)
	agent := ts.machine("agent")
	id := ts.join(agent, "tag:agent", "tag:a-1")
	before := ts.node(id)
	noiseKey := ts.state.NoiseKey.Public()

	again := ts.restart()
	again.apiKey = ts.apiKey // the API key lives on as well
	after := again.node(id)
	for _, field := range []string{"machineKey", "nodeKey", "givenName", "createdAt", "name"} {
		equal(t, field, after[field], before[field])
	}
	equalList(t, "addresses", strs(after["ipAddresses"]), strs(before["ipAddresses"]))
	equalList(t, "tags", strs(after["tags"]), []string{"tag:a-1", "tag:agent"})
	equal(t, "key", after["preAuthKey"].(object)["id"], before["preAuthKey"].(object)["id"])
	equal(t, "noise key", again.state.NoiseKey.Public(), noiseKey)
	equal(t, "policy", again.api("GET", "/api/v1/policy", "")["policy"], any(ourPolicy))
	equal(t, "user", again.api("GET", "/api/v1/user", "")["users"].([]any)[0].(object)["id"], user["id"])
	if second := again.join(again.machine("agent"), "tag:agent"); second == id {
		t.Error("a node id was used again")
	}
}

func TestIDsAreNeverUsedAgain(t *testing.T) {
	ts := startServer(t)
	keyID, _ := ts.mint("tag:agent")
	ts.api("DELETE", "/api/v1/preauthkey?id="+keyID, "")
	nodeID := ts.join(ts.machine("one"), "tag:agent")
	ts.api("DELETE", "/api/v1/node/"+nodeID, "")
	ts = ts.restart()
	if id, _ := ts.mint("tag:agent"); id == keyID {
		t.Error("a key id was used again")
	}
	if id := ts.join(ts.machine("two"), "tag:agent"); id == nodeID {
		t.Error("a node id was used again")
	}
}

func TestSecretsAreNotInTheState(t *testing.T) {
	ts := startServer(t)
	_, text := ts.mint("tag:agent")
	data := string(must(os.ReadFile(filepath.Join(ts.dir, "state.json"))))
	for _, secret := range []string{text[len(text)-secretLength:], ts.apiKey[len(ts.apiKey)-secretLength:]} {
		if strings.Contains(data, secret) {
			t.Error("the value of a key is in the state file")
		}
	}
}

func TestABrokenStateIsRefused(t *testing.T) {
	for name, content := range map[string]string{
		"truncated": `{"Format":1,"NoiseKey":"priv`,
		"empty":     ``,
		"newer":     `{"Format":2}`,
	} {
		path := filepath.Join(t.TempDir(), "state.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadState(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		equal(t, name+" file afterwards", string(must(os.ReadFile(path))), content)
	}
}

func TestOneServerADirectory(t *testing.T) {
	dir := t.TempDir()
	lock, err := lockStateDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockStateDir(dir); err == nil || !strings.Contains(err.Error(), "another devcontrol") {
		t.Errorf("a second lock: %v", err)
	}
	lock.Close()
	second, err := lockStateDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}

func TestADiskThatFailsFailsTheCall(t *testing.T) {
	ts := startServer(t)
	path := filepath.Join(ts.dir, "state.json.new")
	if err := os.Mkdir(path, 0o700); err != nil { // nothing can be written in its place
		t.Fatal(err)
	}
	ts.refused("POST", "/api/v1/preauthkey", `{"aclTags":["tag:agent"],"expiration":"`+farFuture+`"}`, 500, "cannot save the state")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	ts.mint("tag:agent")
}

func TestSaverWritesTheNewestOnce(t *testing.T) {
	var mu sync.Mutex
	revision, writes := uint64(0), 0
	started, release := make(chan struct{}, 100), make(chan struct{})
	s := newSaver(func() (uint64, error) {
		started <- struct{}{}
		<-release
		mu.Lock()
		defer mu.Unlock()
		writes++
		return revision, nil
	})
	var group sync.WaitGroup
	change := func() {
		mu.Lock()
		revision++
		wanted := revision
		mu.Unlock()
		s.ask(wanted)
		group.Go(func() { s.wait(wanted) })
	}
	change()
	<-started
	for range 50 {
		change()
	}
	close(release)
	group.Wait()
	if writes > 2 {
		t.Errorf("51 changes took %d writes, want the first and one for the rest", writes)
	}
}

func TestSaverRecovers(t *testing.T) {
	fail := errors.New("disk full")
	errs, revision := []error{fail, nil}, uint64(0)
	s := newSaver(func() (uint64, error) {
		err := errs[0]
		errs = errs[1:]
		revision++
		return revision, err
	})
	equal(t, "first", s.wait(1), fail)
	equal(t, "second", s.wait(2), nil)
}
