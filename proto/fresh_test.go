// Package proto_test holds the committed Go code against the .proto files.
package proto_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// TestGeneratedCodeIsFresh runs the generators on the .proto files as buf would
// and compares every byte with what is committed. buf itself is not needed.
func TestGeneratedCodeIsFresh(t *testing.T) {
	files, err := filepath.Glob("doproxy/v1/*.proto")
	if err != nil || len(files) == 0 {
		t.Fatalf("no .proto files: %v", err)
	}
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := compiler.Compile(context.Background(), files...)
	if err != nil {
		t.Fatal(err)
	}
	var set []*descriptorpb.FileDescriptorProto
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		set = append(set, protoutil.ProtoFromFileDescriptor(f))
	}
	for _, f := range compiled {
		add(f)
	}
	for _, plugin := range []string{"protoc-gen-go", "protoc-gen-go-grpc"} {
		t.Run(plugin, func(t *testing.T) {
			for name, want := range generate(t, plugin, set, files) {
				have, err := os.ReadFile(name)
				if err != nil || !bytes.Equal(have, []byte(want)) {
					t.Errorf("%s is not what %s makes of the .proto files: run `make generate` (%v)", name, plugin, err)
				}
			}
		})
	}
}

func generate(t *testing.T, plugin string, set []*descriptorpb.FileDescriptorProto, files []string) map[string]string {
	t.Helper()
	request, err := proto.Marshal(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: files,
		ProtoFile:      set,
		Parameter:      proto.String("paths=source_relative"),
	})
	if err != nil {
		t.Fatal(err)
	}
	binary, err := filepath.Abs("../bin/" + plugin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(binary); err != nil {
		t.Fatalf("run `make bin/%s` first (`make test` does): %v", plugin, err)
	}
	cmd := exec.Command(binary)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(request), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &response); err != nil {
		t.Fatal(err)
	}
	if response.Error != nil {
		t.Fatal(*response.Error)
	}
	made := map[string]string{}
	for _, f := range response.File {
		made[f.GetName()] = f.GetContent()
	}
	return made
}
