package dosim

import "net/http"

// routes are all calls that the simulator answers. Variables in paths have the
// names that the API's reference gives them.
func (s *Sim) routes() http.Handler {
	mux := http.NewServeMux()
	api := func(method, path string, h handle) {
		mux.HandleFunc(method+" "+path, s.endpoint(method, path, h))
	}
	s.dropletRoutes(api)
	s.catalogueRoutes(api)
	s.accountRoutes(api)
	s.networkRoutes(api)
	s.domainRoutes(api)
	s.metricRoutes(api)
	s.adminRoutes(mux)

	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.endpoint(r.Method, "/", func(*request) answer { return notFound })(w, r)
	})
	return mux
}

// register makes a route of a handle.
type register func(method, path string, h handle)

func (s *Sim) dropletRoutes(api register) {
	api("POST", "/v2/droplets", s.createDroplets)
	api("GET", "/v2/droplets", s.listDroplets)
	api("DELETE", "/v2/droplets", s.deleteDropletsByTag)
	api("GET", "/v2/droplets/{droplet_id}", s.getDroplet)
	api("DELETE", "/v2/droplets/{droplet_id}", s.deleteDroplet)
	api("GET", "/v2/droplets/{droplet_id}/actions", s.listDropletActions)
	api("POST", "/v2/droplets/{droplet_id}/actions", s.actOnDroplet)
	api("GET", "/v2/droplets/{droplet_id}/actions/{action_id}", s.getDropletAction)
	api("POST", "/v2/droplets/actions", s.actOnTaggedDroplets)
	api("GET", "/v2/actions", s.listActions)
	api("GET", "/v2/actions/{action_id}", s.getAction)
}

func (s *Sim) catalogueRoutes(api register) {
	api("GET", "/v2/sizes", func(r *request) answer { return page(r, "sizes", catalogueSizes) })
	api("GET", "/v2/regions", func(r *request) answer { return page(r, "regions", catalogueRegions) })
	api("GET", "/v2/images", s.listImages)
	api("GET", "/v2/images/{image_id}", s.getImage)
	api("DELETE", "/v2/images/{image_id}", s.deleteImage)
}

func (s *Sim) accountRoutes(api register) {
	api("GET", "/v2/account", s.getAccount)
	api("GET", "/v2/account/keys", s.listKeys)
	api("POST", "/v2/account/keys", s.createKey)
	api("GET", "/v2/account/keys/{ssh_key_identifier}", s.getKey)
	api("PUT", "/v2/account/keys/{ssh_key_identifier}", s.updateKey)
	api("DELETE", "/v2/account/keys/{ssh_key_identifier}", s.deleteKey)
	api("GET", "/v2/tags", s.listTags)
	api("POST", "/v2/tags", s.createTag)
	api("GET", "/v2/tags/{tag_id}", s.getTag)
	api("DELETE", "/v2/tags/{tag_id}", s.deleteTag)
	api("POST", "/v2/tags/{tag_id}/resources", s.tagResources)
	api("DELETE", "/v2/tags/{tag_id}/resources", s.untagResources)
}

func (s *Sim) networkRoutes(api register) {
	api("GET", "/v2/vpcs", s.listVPCs)
	api("POST", "/v2/vpcs", s.createVPC)
	api("GET", "/v2/vpcs/{vpc_id}", s.getVPC)
	api("PUT", "/v2/vpcs/{vpc_id}", s.updateVPC)
	api("PATCH", "/v2/vpcs/{vpc_id}", s.updateVPC)
	api("DELETE", "/v2/vpcs/{vpc_id}", s.deleteVPC)
	api("GET", "/v2/vpcs/{vpc_id}/members", s.listVPCMembers)
	for _, spelling := range []reservedSpelling{
		{path: "/v2/reserved_ips", one: "reserved_ip"}, {path: "/v2/floating_ips", one: "floating_ip"},
	} {
		item := spelling.path + "/{" + spelling.one + "}"
		api("GET", spelling.path, spelling.with(s.listReservedIPs))
		api("POST", spelling.path, spelling.with(s.createReservedIP))
		api("GET", item, spelling.with(s.getReservedIP))
		api("DELETE", item, spelling.with(s.deleteReservedIP))
		api("GET", item+"/actions", spelling.with(s.listReservedIPActions))
		api("POST", item+"/actions", spelling.with(s.actOnReservedIP))
		api("GET", item+"/actions/{action_id}", spelling.with(s.getReservedIPAction))
	}
	api("GET", "/v2/reserved_ipv6", s.listReservedIPv6)
	api("POST", "/v2/reserved_ipv6", s.createReservedIPv6)
	api("GET", "/v2/reserved_ipv6/{reserved_ipv6}", s.getReservedIPv6)
	api("DELETE", "/v2/reserved_ipv6/{reserved_ipv6}", s.deleteReservedIPv6)
	api("POST", "/v2/reserved_ipv6/{reserved_ipv6}/actions", s.actOnReservedIPv6)
}

func (s *Sim) domainRoutes(api register) {
	api("GET", "/v2/domains", s.listDomains)
	api("POST", "/v2/domains", s.createDomain)
	api("GET", "/v2/domains/{domain_name}", s.getDomain)
	api("DELETE", "/v2/domains/{domain_name}", s.deleteDomain)
	api("GET", "/v2/domains/{domain_name}/records", s.listRecords)
	api("POST", "/v2/domains/{domain_name}/records", s.createRecord)
	api("GET", "/v2/domains/{domain_name}/records/{domain_record_id}", s.getRecord)
	api("PUT", "/v2/domains/{domain_name}/records/{domain_record_id}", s.updateRecord)
	api("PATCH", "/v2/domains/{domain_name}/records/{domain_record_id}", s.updateRecord)
	api("DELETE", "/v2/domains/{domain_name}/records/{domain_record_id}", s.deleteRecord)
}

func (s *Sim) metricRoutes(api register) {
	for name, m := range metrics {
		api("GET", "/v2/monitoring/metrics/droplet/"+name, s.metric(m))
	}
}
