# make demo    a whole cluster on this machine against a simulated DigitalOcean
# make test    every test, on real etcd and real HAProxy
# make build   bin/doproxy, bin/dosim
# make bench   the measurements that the documentation quotes
# make lint    vet, import table, buf lint and breaking
# make generate   the API's Go code
SHELL := /bin/bash
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)

.PHONY: demo test build bench lint generate clean haproxy
.DEFAULT_GOAL := build

build:
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/doproxy ./cmd/dosim

demo: haproxy build
	bin/doproxy dev

# HAProxy is the one part that comes from the distribution, with curl, which a
# node's set-up uses.
haproxy:
	@PATH=$$PATH:/usr/sbin; missing=; \
	for part in haproxy curl; do command -v $$part >/dev/null || missing="$$missing $$part"; done; \
	if [ "$$missing" ]; then \
	  sudo=$$([ $$(id -u) = 0 ] || echo sudo); \
	  echo "installing with apt-get ($${sudo:-as root}), for it is missing:$$missing"; \
	  $$sudo apt-get update -qq && RUNLEVEL=1 $$sudo apt-get install -y -qq --no-install-recommends $$missing; \
	fi

test: haproxy build bin/etcd bin/protoc-gen-go bin/protoc-gen-go-grpc bin/grpcurl
	DOPROXY_BIN=$(CURDIR)/bin DOPROXY_OPENAPI=$${DOPROXY_OPENAPI:-$$(ls $(CURDIR)/../shared/data/digitalocean-openapi.json 2>/dev/null)} \
	  $(GO) test -timeout 40m ./...

bench: haproxy build bin/etcd
	DOPROXY_BIN=$(CURDIR)/bin $(GO) test -run '^$$' -bench . -benchtime 1x -timeout 60m -v ./inventory/raft ./cmd/doproxy/e2e

# The tools have modules of their own, so that go.mod holds only what doproxy needs.
bin/etcd: tools/etcd/go.sum
	cd tools/etcd && $(GO) build -trimpath -ldflags '-s -w' -o ../../bin/etcd go.etcd.io/etcd/server/v3
bin/grpcurl: tools/grpcurl/go.sum
	cd tools/grpcurl && $(GO) build -o ../../bin/grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl
bin/protoc-gen-go: tools/protoc/go.sum
	cd tools/protoc && $(GO) build -o ../../bin/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
bin/protoc-gen-go-grpc: tools/protoc/go.sum
	cd tools/protoc && $(GO) build -o ../../bin/protoc-gen-go-grpc google.golang.org/grpc/cmd/protoc-gen-go-grpc
bin/buf: tools/buf/go.sum
	cd tools/buf && $(GO) build -o ../../bin/buf github.com/bufbuild/buf/cmd/buf

generate: bin/buf bin/protoc-gen-go bin/protoc-gen-go-grpc
	bin/buf generate

# What the API may not break is the last release, or else main.
AGAINST ?= .git\#branch=$(shell git describe --tags --abbrev=0 2>/dev/null || echo main)
lint: bin/buf
	$(GO) vet ./...
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "gofmt would change: $$unformatted"; exit 1; }
	$(GO) test ./docs
	$(GO) mod tidy -diff
	bin/buf lint
	bin/buf breaking --against '$(AGAINST)'

clean:
	rm -rf bin
