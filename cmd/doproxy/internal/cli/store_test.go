package cli

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func TestClusterInit(t *testing.T) {
	b := newBench(t)
	b.want(0, `Success: lb2 is the first member of store 01JSTORE.
It stops with this one. Have two more nodes join, one after the other:
  doproxy cluster token         here, for each of them
  doproxy cluster join TOKEN    there
`, "", "cluster", "init")
	b.fake.refuses = "node lb2 is a member of store 01JSTORE already"
	b.want(ExitRefused, "", "doproxy: cluster init: node lb2 is a member of store 01JSTORE already\n", "cluster", "init")
}

// A node that was reached may have begun a store, or joined one: no other node
// is asked to do so too.
func TestFormingIsAskedOfOneNodeOnce(t *testing.T) {
	b := newBench(t)
	two := b.env["DOPROXY_SERVER"] + ",lb9:7475"
	for _, args := range [][]string{{"cluster", "init"}, {"cluster", "join", "x"}} {
		if got := b.run(append(args, "--server", two)...); got.exit != ExitUsage || !strings.Contains(got.err, "name one with --server") {
			t.Errorf("%q: exit %d, stderr %q; want a refusal", args, got.exit, got.err)
		}
	}
	b.fake.before = func(proto.Message) error { return status.Error(codes.Unavailable, "this node ends") }
	for _, args := range [][]string{{"cluster", "init"}, {"cluster", "join", "x"}, {"cluster", "step-down"}} {
		b.fake.calls = nil
		got := b.run(args...)
		if got.exit != ExitUnavailable || !strings.Contains(got.err, "  mend: it may have been done all the same: look with `doproxy ") || len(b.fake.calls) != 1 {
			t.Errorf("%q: exit %d, %d calls, stderr %q", args, got.exit, len(b.fake.calls), got.err)
		}
	}
	b.fake.before = func(proto.Message) error {
		return refusal(codes.Unavailable, "OUTCOME_UNKNOWN", "no end; it may have been done all the same: look", "", "")
	}
	b.want(ExitUnavailable, "", "doproxy: cluster init: no end; it may have been done all the same: look\n", "cluster", "init")
}

func TestClusterJoin(t *testing.T) {
	b := newBench(t)
	joined := "Success: lb2 is a member of the store and keeps up.\n3 voters; the store goes on with 1 of them lost.\n"
	b.want(0, joined, "", "cluster", "join", "dpt1-secret")
	b.answer = "  dpt1-other\n"
	b.want(0, joined, "Token: ", "cluster", "join", "-")
	reqs := sent[*doproxyv1.JoinStoreRequest](b.fake)
	if len(reqs) != 2 || reqs[0].GetToken() != "dpt1-secret" || reqs[1].GetToken() != "dpt1-other" {
		t.Errorf("sent %v", reqs)
	}
	b.answer = ""
	b.want(ExitUsage, "", "doproxy: cluster join: the token is empty\n  mend: make one on a member with `doproxy cluster token`\n", "cluster", "join", "-")
}

func TestClusterToken(t *testing.T) {
	b := newBench(t)
	b.want(0, "dpt1-secret\n", "", "cluster", "token", "--ttl", "10m")
	if got := sent[*doproxyv1.CreateJoinTokenRequest](b.fake)[0].GetTtl().AsDuration(); got != 10*time.Minute {
		t.Errorf("asked for %v", got)
	}
	for ttl, shown := range map[string]string{"1s": "1s", "0s": "0s", "-1h": "-1h0m0s", "9999h": "9999h0m0s"} {
		b.want(ExitUsage, "", "doproxy: --ttl "+shown+": want 1m to 720h\n", "cluster", "token", "--ttl", ttl)
	}
	b.want(0, "dpt1-secret\n", "", "cluster", "token", "--ttl", "720h")
	b.width = 80
	b.want(0, "dpt1-secret\n", "\nOn the new node, within 60m:\n  doproxy cluster join -    and paste it\n", "cluster", "token")
}

func TestClusterMembers(t *testing.T) {
	b := newBench(t)
	b.fake.sick(2)
	b.fake.membership.Members[1].Since, b.fake.membership.Members[1].Behind = nil, -1
	golden(t, "members.txt", b.run("cluster", "members").out)
	golden(t, "members.json", b.run("cluster", "-o", "json").out)
	b.fake.unknown = "the members have no leader"
	b.want(ExitUnavailable, "", "doproxy: cluster members: the members have no leader\n", "cluster", "members")
	b.fake.unknown, b.fake.membership, b.fake.store = "", nil, "etcd"
	b.want(ExitRefused, "", "doproxy: cluster members: the store of lb2 is etcd, whose members are not doproxy's\n"+
		"  mend: for the integrated store set raft.address in the node's doproxy.yml and restart its agent, then `doproxy cluster init` or `doproxy cluster join`\n", "cluster", "members")
}

func TestVoterSummary(t *testing.T) {
	for _, c := range []struct {
		voters, healthy, coming int
		summary, advice         string
	}{
		{0, 0, 0, "0 voters; the store has stopped", ""},
		{1, 1, 0, "1 voter; the store stops when it is lost", "with one voter nothing may be lost"},
		{1, 1, 1, "1 voter; the store stops when it is lost", "lb2 does not vote yet"},
		{2, 2, 0, "2 voters; the store stops when one of them is lost", "2 voters tolerate the loss of none, no more than 1 voter does: have another node join"},
		{2, 1, 0, "2 voters, 1 of them unhealthy; the store has stopped", "2 voters tolerate the loss of none"},
		{3, 3, 0, "3 voters; the store goes on with 1 of them lost", ""},
		{3, 2, 2, "3 voters, 1 of them unhealthy; the store stops with the next one lost", ""},
		{4, 4, 2, "4 voters; the store goes on with 1 of them lost", "lb5 and lb6 do not vote yet"},
		{4, 4, 0, "4 voters; the store goes on with 1 of them lost", "4 voters tolerate the loss of 1, no more than 3 voters do: have another node join"},
		{5, 5, 0, "5 voters; the store goes on with 2 of them lost", ""},
		{5, 4, 0, "5 voters, 1 of them unhealthy; the store goes on with 1 more lost", ""},
	} {
		m := &doproxyv1.Membership{}
		for i := range c.voters + c.coming {
			m.Members = append(m.Members, &doproxyv1.Member{Node: "nodes/lb" + count(int32(i+1)), Voter: i < c.voters, Healthy: i < c.healthy || i >= c.voters})
		}
		counting(m)
		if got := voterSummary(m); !strings.HasPrefix(got, c.summary) {
			t.Errorf("%d of %d healthy: %q, want %q", c.healthy, c.voters, got, c.summary)
		}
		if got := voterAdvice(m); !strings.HasPrefix(got, c.advice) || (got == "") != (c.advice == "") {
			t.Errorf("%d of %d healthy, %d coming: %q, want %q", c.healthy, c.voters, c.coming, got, c.advice)
		}
	}
}

func TestClusterRemove(t *testing.T) {
	b := newBench(t)
	b.fake.sick(2)
	left := "warning: 2 voters tolerate the loss of none, no more than 1 voter does: have another node join (`doproxy cluster token`)\n2 voters; the store stops when one of them is lost.\n"
	shown := "lb3 (voter, unhealthy for 12s) leaves the store; left: lb1 and lb2.\n" + left
	b.want(0, shown, "", "cluster", "remove", "lb3", "--dry-run")
	b.want(ExitUsage, shown, "doproxy: cluster remove lb3: it asks before it goes on, and there is no terminal to ask at; nothing was changed\n  mend: look with `doproxy cluster remove lb3 --dry-run`, then add --yes\n", "cluster", "remove", "lb3")
	b.answer = "n"
	b.want(ExitFailed, shown, "Remove lb3? [y/N] doproxy: cluster remove lb3: not agreed to; nothing was changed\n", "cluster", "remove", "lb3")
	b.answer = "y"
	b.want(0, shown+"Success: lb3 is no member of the store any more.\n"+left, "Remove lb3? [y/N] ", "cluster", "remove", "lb3")
	b.want(ExitNotFound, "", "doproxy: cluster remove lb3: the store has no member \"lb3\"\n", "cluster", "remove", "lb3")

	b.want(0, `lb1 (leader, healthy) leaves the store; left: lb2.
warning: lb1 leads the store: another member takes over first
warning: lb1 is healthy: once removed, its agent has no store until it joins anew
warning: with one voter nothing may be lost: have two more nodes join, each with a token of `+"`doproxy cluster token`"+`
1 voter; the store stops when it is lost.
`, "", "cluster", "remove", "nodes/lb1", "--dry-run")
	b.fake.sick(1)
	got := b.run("cluster", "remove", "lb1", "--force", "--dry-run")
	if !strings.Contains(got.out, "warning: the store stops by it") {
		t.Errorf("it does not say that the store stops:\n%s", got.out)
	}
	forced := false
	for _, req := range sent[*doproxyv1.RemoveMemberRequest](b.fake) {
		forced = forced || req.GetForce()
		if !req.GetValidateOnly() && req.GetNode() != "nodes/lb3" {
			t.Errorf("sent %v", req)
		}
	}
	if !forced {
		t.Error("--force was not sent")
	}
	if got := b.run("cluster", "remove", "lb1", "--yes", "-o", "json"); !strings.Contains(got.out, `"dry_run": false`) || !strings.Contains(got.out, `"stops": true`) {
		t.Errorf("exit %d, stdout:\n%s", got.exit, got.out)
	}
}

func TestClusterStepDown(t *testing.T) {
	b := newBench(t)
	b.want(0, "Success: lb3 leads the store; it was lb1.\n", "", "cluster", "step-down")
}

func TestStoreStatus(t *testing.T) {
	b := newBench(t)
	b.want(0, "store: raft (asked: lb2)\nraft: 01JSTORE (in use: yes, members: 3, voters: 3, healthy voters: 3, tolerates: 1)\n3 voters; the store goes on with 1 of them lost.\n", "", "store", "status")
	b.fake.store = "etcd"
	b.want(0, "store: etcd (asked: lb2)\nraft: 01JSTORE (in use: no, members: 3, voters: 3, healthy voters: 3, tolerates: 1)\n3 voters; the store goes on with 1 of them lost.\n"+
		"It is not in use. Move the inventory there with `doproxy store migrate --from etcd --to raft`.\n", "", "store")
	b.fake.untrusted = "the inventory moved to raft"
	b.want(0, "store: etcd (asked: lb2)\nraft: 01JSTORE (in use: no, members: 3, voters: 3, healthy voters: 3, tolerates: 1)\nwarning: the inventory moved to raft\n3 voters; the store goes on with 1 of them lost.\n", "", "store")
	b.fake.untrusted = ""
	b.fake.unknown = "this node belongs to no store yet"
	b.want(0, "store: etcd (asked: lb2)\nwarning: the integrated store is not in use, and does not answer: this node belongs to no store yet\n", "", "store", "status")
	b.fake.unknown, b.fake.membership = "", nil
	b.want(0, "store: etcd (asked: lb2)\n", "", "store", "status")
}

func TestStoreMigrate(t *testing.T) {
	b := newBench(t)
	b.fake.next = []string{"Stop etcd."}
	lines := "copying the inventory\ncomparing both\n"
	b.want(0, "Success: raft holds the inventory. Both stores were compared and hold the same: 10042 records, digest 9c1185a5.\nChanges were held up for 312ms.\nStop etcd.\n", lines,
		"store", "migrate", "--from", "etcd", "--to", "raft", "--yes")
	b.answer = "y"
	b.fake.next = nil
	b.want(0, "Success: given up: the inventory stays in raft.\n", "Give up the move from raft to etcd? [y/N] ", "store", "migrate", "--from", "raft", "--to", "etcd", "--abort", "--no-progress")
	if got := b.run("store", "migrate", "--from", "etcd", "--to", "raft", "--yes", "-o", "json"); got.err != "" || !strings.Contains(got.out, `"records": 10042`) || !strings.Contains(got.out, `"held": "0.312s"`) {
		t.Errorf("stdout %s, stderr %q", got.out, got.err)
	}
	for _, args := range [][]string{{"--from", "etcd"}, {"--from", "etcd", "--to", "etcd"}, {"--from", "etcd", "--to", "consul"}} {
		if got := b.run(append([]string{"store", "migrate", "--yes"}, args...)...); got.exit != ExitUsage {
			t.Errorf("%q: exit %d, want %d", args, got.exit, ExitUsage)
		}
	}
	if n := len(sent[*doproxyv1.MigrateStoreRequest](b.fake)); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
}

// It is not begun again by itself, and says how to go on.
func TestStoreMigrateIsInterrupted(t *testing.T) {
	b := newBench(t)
	mend := "  mend: `doproxy store migrate --from etcd --to raft` goes on where it stopped\n  mend: `doproxy store migrate --from etcd --to raft --abort` gives it up\n"
	args := []string{"store", "migrate", "--from", "etcd", "--to", "raft", "--yes"}
	b.fake.step = func(n int) error {
		if n == 1 {
			return status.Error(codes.Unavailable, "this node ends")
		}
		return nil
	}
	b.want(ExitUnavailable, "", "copying the inventory\ndoproxy: store migrate: this node ends\n"+mend, args...)
	if n := len(sent[*doproxyv1.MigrateStoreRequest](b.fake)); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	b.fake.step = func(int) error { return status.Error(codes.FailedPrecondition, "etcd holds no inventory") }
	if got := b.run(args...); strings.Contains(got.err, "goes on") {
		t.Errorf("a refusal is told as a move that goes on: %s", got.err)
	}
	b.fake.step, b.fake.pause = nil, time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	out, errs := &syncBuffer{}, &syncBuffer{}
	exit := make(chan int, 1)
	go func() { exit <- b.runOn(ctx, out, errs, args...) }()
	until(t, func() bool { return strings.Contains(errs.String(), "copying") })
	cancel()
	if code := <-exit; code != ExitInterrupted || !strings.HasSuffix(errs.String(), "doproxy: store migrate: interrupted\n"+mend) {
		t.Errorf("exit %d, stderr:\n%s", code, errs)
	}
}

func TestCompletionOfMembers(t *testing.T) {
	b := newBench(t)
	b.fake.sick(1)
	b.fake.membership.Members[2].Since = timestamppb.New(epoch)
	for args, want := range map[string]string{
		"cluster remove ":       "lb1\tleader, healthy\nlb2\tvoter, unhealthy for 12s\nlb3\tvoter, healthy\n:4\n",
		"cluster remove lb1 ":   ":4\n",
		"store migrate --from ": "etcd\nraft\n:4\n",
		"cluster join ":         ":4\n",
	} {
		if got := b.run(append([]string{"__complete"}, strings.Split(args, " ")...)...); got.out != want {
			t.Errorf("completing %q gave %q, want %q", args, got.out, want)
		}
	}
}
