package dosim

import (
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// sshKey is an SSH key of the account, in the API's own form.
type sshKey struct {
	ID          int    `json:"id"`
	Fingerprint string `json:"fingerprint"`
	PublicKey   string `json:"public_key"`
	Name        string `json:"name"`
}

// key finds a key by id or fingerprint.
func (st *state) key(identifier string) *sshKey {
	for _, k := range st.Keys {
		if strconv.Itoa(k.ID) == identifier || k.Fingerprint == identifier {
			return k
		}
	}
	return nil
}

func (s *Sim) listKeys(r *request) answer { return page(r, "ssh_keys", s.state.Keys) }

func (s *Sim) createKey(r *request) answer {
	var body sshKey
	if err := r.decode(&body); err != nil {
		return badRequest("unable to decode request body: " + err.Error())
	}
	if body.Name == "" {
		return unprocessable("Name can't be blank")
	}
	print, err := fingerprint(body.PublicKey)
	if err != nil {
		return unprocessable("Key invalid, key should be of the format `ssh-* key [comment]`")
	}
	if s.state.key(print) != nil {
		return unprocessable("SSH Key is already in use on your account")
	}
	k := &sshKey{ID: s.state.NextKey, Fingerprint: print, PublicKey: body.PublicKey, Name: body.Name}
	s.state.NextKey++
	s.state.Keys = append(s.state.Keys, k)
	return created(map[string]any{"ssh_key": k})
}

// fingerprint is the MD5 of an OpenSSH public key's data, as DigitalOcean names keys.
func fingerprint(key string) (string, error) {
	fields := strings.Fields(key)
	if len(fields) < 2 {
		return "", fmt.Errorf("%d words", len(fields))
	}
	data, err := base64.StdEncoding.DecodeString(fields[1])
	if err != nil {
		return "", err
	}
	hex := make([]string, 0, md5.Size)
	for _, b := range md5.Sum(data) {
		hex = append(hex, fmt.Sprintf("%02x", b))
	}
	return strings.Join(hex, ":"), nil
}

func (s *Sim) getKey(r *request) answer {
	k := s.state.key(r.http.PathValue("ssh_key_identifier"))
	if k == nil {
		return notFound
	}
	return ok(map[string]any{"ssh_key": k})
}

func (s *Sim) updateKey(r *request) answer {
	k := s.state.key(r.http.PathValue("ssh_key_identifier"))
	if k == nil {
		return notFound
	}
	var body struct{ Name string }
	if err := r.decode(&body); err != nil {
		return badRequest("unable to decode request body: " + err.Error())
	}
	if body.Name == "" {
		return unprocessable("Name can't be blank")
	}
	k.Name = body.Name
	return ok(map[string]any{"ssh_key": k})
}

func (s *Sim) deleteKey(r *request) answer {
	k := s.state.key(r.http.PathValue("ssh_key_identifier"))
	if k == nil {
		return notFound
	}
	s.state.Keys = slices.DeleteFunc(s.state.Keys, func(x *sshKey) bool { return x == k })
	return noContent
}
