//go:build ignore

// Writes an OpenAPI version 2 document, cut down to the named schemas, as protobuf: see README.md.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
)

func main() {
	raw, err := os.ReadFile(os.Args[1])
	if err != nil { panic(err) }
	var doc map[string]any
	if err := json.Unmarshal(raw, &doc); err != nil { panic(err) }
	keep := map[string]bool{}
	for _, n := range strings.Fields(os.Args[3]) { keep[n] = true }
	defs := doc["definitions"].(map[string]any)
	for n := range defs { if !keep[n] { delete(defs, n) } }
	doc["paths"] = map[string]any{}
	delete(doc, "security"); delete(doc, "securityDefinitions")
	out, _ := json.Marshal(doc)
	d, err := openapi_v2.ParseDocument(out)
	if err != nil { panic(err) }
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(d)
	if err != nil { panic(err) }
	fmt.Println(len(defs), len(b))
	os.WriteFile(os.Args[2], b, 0o644)
}
