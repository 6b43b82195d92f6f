package raft

import (
	"testing"
	"time"

	hraft "github.com/hashicorp/raft"
)

// TestVoteAskedAgain: a voter that still has a leader when it is asked first votes
// in the same election once it has missed it.
func TestVoteAskedAgain(t *testing.T) {
	c := newCluster(t, 3)
	for _, n := range c.nodes[1:] {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	m := c.nodes[0].member.Load()
	c.eventually("a candidate", func() error {
		if m.raft.State() != hraft.Candidate {
			return errNoLeader
		}
		return nil
	})

	voter, err := listen(c.opts[1].Address, c.opts[1].Address, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer voter.close()
	go voter.serve()
	trans := hraft.NewNetworkTransportWithConfig(&hraft.NetworkTransportConfig{Logger: m.library, Stream: voter.queues[speakRaft], Timeout: time.Second, MsgpackUseNewTimeFormat: true})
	defer trans.Close()
	term := m.raft.CurrentTerm() + 1
	go func() {
		for asked := 0; ; {
			var rpc hraft.RPC
			select {
			case rpc = <-trans.Consumer():
			case <-t.Context().Done():
				return
			}
			r, ok := rpc.Command.(*hraft.RequestPreVoteRequest)
			if ok && string(r.ID) == "test" {
				asked++
			}
			rpc.Respond(&hraft.RequestPreVoteResponse{Term: term - 1, Granted: ok && asked > 1}, nil)
		}
	}()
	var answer hraft.RequestPreVoteResponse
	args := &hraft.RequestPreVoteRequest{RPCHeader: hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte("test")}, Term: term}
	if err := m.verify.trans.RequestPreVote("voter", hraft.ServerAddress(c.opts[1].Address), args, &answer); err != nil || !answer.Granted {
		t.Errorf("it has %+v, %v", answer, err)
	}
}
