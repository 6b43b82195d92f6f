package server

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// page cuts one page out of all (AIP-158). key orders all and is unique; of what
// lies beyond the token's key the page takes the first. within names what is
// listed: a token of another listing is refused. over caps a size that is too large.
func page[T any](all []T, key func(T) string, within string, size int32, over int, token string) (items []T, next string, err error) {
	if size < 0 {
		return nil, "", invalid("page_size", size, "must not be negative")
	}
	n := int(size)
	if n == 0 || n > over {
		n = over
	}
	if token != "" {
		raw, err := base64.RawURLEncoding.DecodeString(token)
		of, last, ok := strings.Cut(string(raw), "\n")
		if err != nil || !ok || of != within {
			return nil, "", invalid("page_token", token, "must be the next_page_token of the same listing, or left out to begin anew")
		}
		for len(all) > 0 && key(all[0]) <= last {
			all = all[1:]
		}
	}
	if len(all) <= n {
		return all, "", nil
	}
	return all[:n], base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%s\n%s", within, key(all[n-1]))), nil
}
