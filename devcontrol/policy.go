package main

// Policies of the one shape that elizacloud writes: tags reach tags on ports. What Headscale would refuse is refused
// with its words (hscontrol/policy/v2/types.go, v0.29.2); what it would take and we cannot enforce is refused as well,
// since a rule that is silently dropped could hide a hole.

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/tailscale/hujson"
	"tailscale.com/tailcfg"
)

// Policy is what is enforced.
type Policy struct {
	Tags     []string // those that a node may be given
	AllowAll bool     // no rules at all, not even an empty list of them
	Rules    []Rule
}

// Rule lets nodes with one of the Src tags reach nodes with one of the Dst tags on a range of ports.
type Rule struct {
	Src, Dst  []string
	Protocols []int // IANA numbers; nil: TCP, UDP and ICMP
	Ports     tailcfg.PortRange
}

type policyDocument struct {
	TagOwners map[string][]string `json:"tagOwners"`
	Grants    []policyGrant       `json:"grants"`
	ACLs      []policyACL         `json:"acls"`

	// Sections that say nothing as long as they are empty.
	Groups              map[string]any `json:"groups"`
	Hosts               map[string]any `json:"hosts"`
	AutoApprovers       map[string]any `json:"autoApprovers"`
	SSH                 []any          `json:"ssh"`
	Tests               []any          `json:"tests"`
	SSHTests            []any          `json:"sshTests"`
	NodeAttrs           []any          `json:"nodeAttrs"`
	RandomizeClientPort bool           `json:"randomizeClientPort"`
}

type policyGrant struct {
	Src []string       `json:"src"`
	Dst []string       `json:"dst"`
	IP  []string       `json:"ip"`
	App map[string]any `json:"app"`
	Via []string       `json:"via"`
}

type policyACL struct {
	Action string   `json:"action"`
	Proto  string   `json:"proto"`
	Src    []string `json:"src"`
	Dst    []string `json:"dst"` // tag:name:ports
}

// parsePolicy reads a HuJSON document.
func parsePolicy(text string) (*Policy, error) {
	document, err := decodePolicy(text)
	if err != nil {
		return nil, fmt.Errorf("parsing policy: %w", err)
	}
	policy := &Policy{AllowAll: document.Grants == nil && document.ACLs == nil}
	for tag := range document.TagOwners {
		policy.Tags = append(policy.Tags, tag)
	}
	slices.Sort(policy.Tags)
	for _, grant := range document.Grants {
		rules, err := grant.rules(policy)
		if err != nil {
			return nil, fmt.Errorf("parsing policy: %w", err)
		}
		policy.Rules = append(policy.Rules, rules...)
	}
	for _, acl := range document.ACLs {
		rules, err := acl.rules(policy)
		if err != nil {
			return nil, fmt.Errorf("parsing policy: %w", err)
		}
		policy.Rules = append(policy.Rules, rules...)
	}
	return policy, nil
}

func decodePolicy(text string) (*policyDocument, error) {
	document := &policyDocument{}
	if text == "" {
		return document, nil
	}
	standard, err := hujson.Standardize([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("parsing HuJSON: %w", err)
	}
	err = json.Unmarshal(standard, document, json.RejectUnknownMembers(true), json.MatchCaseInsensitiveNames(true))
	if errors.Is(err, json.ErrUnknownName) {
		return nil, fmt.Errorf("unknown field: %q", unknownField(err))
	}
	if err != nil {
		return nil, fmt.Errorf("parsing policy from bytes: %w", err)
	}
	for tag, owners := range document.TagOwners {
		if !strings.HasPrefix(tag, "tag:") {
			return nil, fmt.Errorf("tag must start with 'tag:', got: %q", tag)
		}
		for _, owner := range owners {
			if _, defined := document.TagOwners[owner]; !defined && !strings.Contains(owner, "@") {
				return nil, unsupported("the owner " + strconv.Quote(owner) + " of " + tag)
			}
		}
	}
	if section := document.unsupportedSection(); section != "" {
		return nil, unsupported("the section " + section)
	}
	return document, nil
}

func (document *policyDocument) unsupportedSection() string {
	switch {
	case len(document.Groups) > 0:
		return "groups"
	case len(document.Hosts) > 0:
		return "hosts"
	case len(document.AutoApprovers) > 0:
		return "autoApprovers"
	case len(document.SSH) > 0:
		return "ssh"
	case len(document.Tests) > 0:
		return "tests"
	case len(document.SSHTests) > 0:
		return "sshTests"
	case len(document.NodeAttrs) > 0:
		return "nodeAttrs"
	case document.RandomizeClientPort:
		return "randomizeClientPort"
	}
	return ""
}

func unknownField(err error) string {
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		return semantic.JSONPointer.LastToken()
	}
	return ""
}

func unsupported(what string) error {
	return fmt.Errorf("devcontrol cannot enforce %s: it knows rules from tag: to tag: on ports only; use a Headscale for more", what)
}

func (grant *policyGrant) rules(policy *Policy) ([]Rule, error) {
	if len(grant.App) > 0 || len(grant.Via) > 0 {
		return nil, unsupported("a grant with app or via")
	}
	if len(grant.IP) == 0 {
		return nil, errors.New("ip and app can not both be empty")
	}
	if err := policy.check(grant.Src, grant.Dst); err != nil {
		return nil, err
	}
	var rules []Rule
	for _, ip := range grant.IP {
		protocol, ports, found := strings.Cut(ip, ":")
		if !found {
			protocol, ports = "", ip
		}
		numbers, err := protocolNumbers(protocol)
		if err != nil {
			return nil, err
		}
		portRange, err := parsePorts(ports)
		if err != nil {
			return nil, err
		}
		rules = append(rules, Rule{Src: grant.Src, Dst: grant.Dst, Protocols: numbers, Ports: portRange})
	}
	return rules, nil
}

func (acl *policyACL) rules(policy *Policy) ([]Rule, error) {
	if acl.Action != "accept" {
		return nil, fmt.Errorf("action=%q is not supported: invalid ACL action", acl.Action)
	}
	numbers, err := protocolNumbers(acl.Proto)
	if err != nil {
		return nil, err
	}
	var rules []Rule
	for _, target := range acl.Dst {
		colon := strings.LastIndexByte(target, ':')
		if colon < len("tag:") {
			return nil, fmt.Errorf("dst=%q: no ports after a tag", target)
		}
		alias, allPorts := target[:colon], target[colon+1:]
		if err := policy.check(acl.Src, []string{alias}); err != nil {
			return nil, err
		}
		for ports := range strings.SplitSeq(allPorts, ",") {
			portRange, err := parsePorts(ports)
			if err != nil {
				return nil, fmt.Errorf("dst=%q: %w", target, err)
			}
			rules = append(rules, Rule{Src: acl.Src, Dst: []string{alias}, Protocols: numbers, Ports: portRange})
		}
	}
	return rules, nil
}

// check refuses what is no tag, and tags that the policy does not define.
func (policy *Policy) check(aliases ...[]string) error {
	for _, alias := range slices.Concat(aliases...) {
		if !strings.HasPrefix(alias, "tag:") {
			return unsupported(strconv.Quote(alias))
		}
		if !slices.Contains(policy.Tags, alias) {
			return fmt.Errorf("tag not found: %q", alias)
		}
	}
	return nil
}

func protocolNumbers(name string) ([]int, error) {
	switch name {
	case "", "*":
		return nil, nil
	case "tcp", "6":
		return []int{6}, nil
	case "udp", "17":
		return []int{17}, nil
	}
	return nil, unsupported("the protocol " + strconv.Quote(name))
}

func parsePorts(text string) (tailcfg.PortRange, error) {
	if text == "*" {
		return tailcfg.PortRangeAny, nil
	}
	low, high, isRange := strings.Cut(text, "-")
	if !isRange {
		high = low
	}
	first, err := strconv.ParseUint(low, 10, 16)
	if err != nil {
		return tailcfg.PortRange{}, portError(text, err)
	}
	last, err := strconv.ParseUint(high, 10, 16)
	if err != nil {
		return tailcfg.PortRange{}, portError(text, err)
	}
	if first > last {
		return tailcfg.PortRange{}, fmt.Errorf("port range %q: invalid port range: first port is greater than last port", text)
	}
	return tailcfg.PortRange{First: uint16(first), Last: uint16(last)}, nil
}

func portError(text string, err error) error {
	if errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("port range %q: port number out of range", text)
	}
	return fmt.Errorf("port range %q: not a port number", text)
}

// allows says whether the policy lets the source reach the target on any port.
func (policy *Policy) allows(source, target *Node) bool {
	return policy.AllowAll || slices.ContainsFunc(policy.Rules, func(rule Rule) bool {
		return source.hasAnyTag(rule.Src) && target.hasAnyTag(rule.Dst)
	})
}

// defines says whether a node may be given the tag.
func (policy *Policy) defines(tag string) bool {
	return slices.Contains(policy.Tags, tag)
}
