package main

// How things look in Headscale's JSON, which is protobuf's: 64-bit numbers are strings, unset timestamps null, empty
// lists []. Field names and order are those of proto/headscale/v1 in v0.29.2.

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// ID is a uint64 that is written as a string, and read as a string or a number.
type ID uint64

func (id ID) String() string { return strconv.FormatUint(uint64(id), 10) }

func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := strconv.ParseUint(string(text), 10, 64)
	*id = ID(parsed)
	return err
}

func (id *ID) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	if id.UnmarshalText([]byte(strings.Trim(string(data), `"`))) != nil {
		return fmt.Errorf("invalid value for uint64 field: %s", data)
	}
	return nil
}

// timestamp is a time with three, six or nine digits after the point, or none, as protobuf writes them.
type timestamp time.Time

func (t timestamp) MarshalJSON() ([]byte, error) {
	text := time.Time(t).UTC().Format("2006-01-02T15:04:05.000000000")
	for range 3 {
		text = strings.TrimSuffix(text, "000")
	}
	return []byte(`"` + strings.TrimSuffix(text, ".") + `Z"`), nil
}

func (t *timestamp) UnmarshalJSON(data []byte) error {
	if err := json.Unmarshal(data, (*time.Time)(t)); err != nil {
		return fmt.Errorf("invalid google.protobuf.Timestamp value %s", data)
	}
	return nil
}

func (t *timestamp) orZero() time.Time {
	if t == nil {
		return time.Time{}
	}
	return time.Time(*t)
}

func optional(t *time.Time) *timestamp {
	if t == nil {
		return nil
	}
	return new(timestamp(*t))
}

type wireUser struct {
	ID            ID        `json:"id"`
	Name          string    `json:"name"`
	CreatedAt     timestamp `json:"createdAt"`
	DisplayName   string    `json:"displayName"`
	Email         string    `json:"email"`
	ProviderID    string    `json:"providerId"`
	Provider      string    `json:"provider"`
	ProfilePicURL string    `json:"profilePicUrl"`
}

// taggedDevices is the user that a list shows for tagged nodes; asked for by its id, the same node has none.
var taggedDevices = wireUser{ID: taggedDevicesID, Name: "tagged-devices", DisplayName: "Tagged Devices"}

func (user *User) wire() *wireUser {
	if user == nil {
		return nil
	}
	name := user.Name
	if name == "" { // Headscale falls back the same way
		name = user.ID.String()
	}
	return &wireUser{
		ID: user.ID, Name: name, CreatedAt: timestamp(user.CreatedAt),
		DisplayName: user.DisplayName, Email: user.Email, ProfilePicURL: user.ProfilePicURL,
	}
}

type wireAuthKey struct {
	User       *wireUser  `json:"user"`
	ID         ID         `json:"id"`
	Key        string     `json:"key"`
	Reusable   bool       `json:"reusable"`
	Ephemeral  bool       `json:"ephemeral"`
	Used       bool       `json:"used"`
	Expiration *timestamp `json:"expiration"`
	CreatedAt  *timestamp `json:"createdAt"`
	ACLTags    []string   `json:"aclTags"`
}

// wire shows the key masked; the caller that just made it puts the whole text in.
func (authKey *AuthKey) wire(state *State) *wireAuthKey {
	if authKey == nil {
		return nil
	}
	return &wireAuthKey{
		User: state.Users[authKey.UserID].wire(), ID: authKey.ID, Key: mask(authKeyKind, authKey.Prefix),
		Reusable: authKey.Reusable, Used: authKey.Used,
		Expiration: optional(&authKey.Expiration), CreatedAt: optional(&authKey.CreatedAt),
		ACLTags: orEmpty(authKey.Tags),
	}
}

type wireNode struct {
	ID              ID           `json:"id"`
	MachineKey      string       `json:"machineKey"`
	NodeKey         string       `json:"nodeKey"`
	DiscoKey        string       `json:"discoKey"`
	IPAddresses     []string     `json:"ipAddresses"`
	Name            string       `json:"name"`
	User            *wireUser    `json:"user"`
	LastSeen        *timestamp   `json:"lastSeen"`
	Expiry          *timestamp   `json:"expiry"`
	PreAuthKey      *wireAuthKey `json:"preAuthKey"`
	CreatedAt       timestamp    `json:"createdAt"`
	RegisterMethod  string       `json:"registerMethod"`
	GivenName       string       `json:"givenName"`
	Online          bool         `json:"online"`
	ApprovedRoutes  []string     `json:"approvedRoutes"`
	AvailableRoutes []string     `json:"availableRoutes"`
	SubnetRoutes    []string     `json:"subnetRoutes"`
	Tags            []string     `json:"tags"`
}

// wire shows the node as a call for this one node does: a tagged one has no user.
func (node *Node) wire(state *State) *wireNode {
	shown := &wireNode{
		ID: node.ID, MachineKey: node.MachineKey.String(), NodeKey: node.NodeKey.String(), DiscoKey: node.DiscoKey.String(),
		IPAddresses: texts(node.addresses()), Name: node.Hostname, User: state.Users[node.UserID].wire(),
		LastSeen: optional(&node.LastSeen), Expiry: optional(node.Expiry), PreAuthKey: node.authKey.wire(state),
		CreatedAt: timestamp(node.CreatedAt), RegisterMethod: "REGISTER_METHOD_AUTH_KEY", GivenName: node.GivenName,
		Online: node.online, ApprovedRoutes: []string{}, AvailableRoutes: []string{}, SubnetRoutes: []string{},
		Tags: orEmpty(node.Tags),
	}
	if node.Hostinfo != nil {
		for _, route := range node.Hostinfo.RoutableIPs {
			shown.AvailableRoutes = append(shown.AvailableRoutes, route.String())
		}
	}
	return shown
}

type wireAPIKey struct {
	ID         ID         `json:"id"`
	Prefix     string     `json:"prefix"`
	Expiration *timestamp `json:"expiration"`
	CreatedAt  *timestamp `json:"createdAt"`
	LastSeen   *timestamp `json:"lastSeen"`
}

func (apiKey *APIKey) wire() *wireAPIKey {
	return &wireAPIKey{
		ID: apiKey.ID, Prefix: mask(apiKeyKind, apiKey.Prefix),
		Expiration: optional(&apiKey.Expiration), CreatedAt: optional(&apiKey.CreatedAt),
	}
}

type wirePolicy struct {
	Policy    string     `json:"policy"`
	UpdatedAt *timestamp `json:"updatedAt"`
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func texts(addresses []netip.Addr) []string {
	shown := make([]string, 0, len(addresses))
	for _, address := range addresses {
		shown = append(shown, address.String())
	}
	return shown
}
