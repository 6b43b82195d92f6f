package dosim

// accountUUID names the one account that there is.
const accountUUID = "5d0a1c40-0000-4000-8000-00000000d051"

func (s *Sim) getAccount(*request) answer {
	return ok(map[string]any{"account": map[string]any{
		"droplet_limit":     s.options.DropletLimit,
		"floating_ip_limit": reservedIPLimit,
		"reserved_ip_limit": reservedIPLimit,
		"volume_limit":      100,
		"email":             "sim@example.com",
		"name":              "Simulator",
		"uuid":              accountUUID,
		"email_verified":    true,
		"status":            "active",
		"status_message":    "",
		"team":              map[string]string{"uuid": accountUUID, "name": "Simulator"},
	}})
}
