package dosim

import "time"

// The types of this file are the API's own, as DigitalOcean's OpenAPI document
// describes them.

type dropletBody struct {
	ID               int          `json:"id"`
	Name             string       `json:"name"`
	Memory           int          `json:"memory"`
	VCPUs            int          `json:"vcpus"`
	Disk             int          `json:"disk"`
	DiskInfo         []diskBody   `json:"disk_info"`
	Locked           bool         `json:"locked"`
	Status           string       `json:"status"`
	Kernel           *struct{}    `json:"kernel"`
	CreatedAt        time.Time    `json:"created_at"`
	Features         []string     `json:"features"`
	BackupIDs        []int        `json:"backup_ids"`
	NextBackupWindow *struct{}    `json:"next_backup_window"`
	SnapshotIDs      []int        `json:"snapshot_ids"`
	Image            *image       `json:"image"`
	VolumeIDs        []string     `json:"volume_ids"`
	Size             *size        `json:"size"`
	SizeSlug         string       `json:"size_slug"`
	Networks         networksBody `json:"networks"`
	Region           *region      `json:"region"`
	Tags             []string     `json:"tags"`
	VPCUUID          string       `json:"vpc_uuid,omitempty"`
}

type networksBody struct {
	V4 []networkV4 `json:"v4"`
	V6 []networkV6 `json:"v6"`
}

type networkV4 struct {
	IPAddress string `json:"ip_address"`
	Netmask   string `json:"netmask"`
	Gateway   string `json:"gateway"`
	Type      string `json:"type"`
}

type networkV6 struct {
	IPAddress string `json:"ip_address"`
	Netmask   int    `json:"netmask"`
	Gateway   string `json:"gateway"`
	Type      string `json:"type"`
}

type diskBody struct {
	Type string `json:"type"`
	Size struct {
		Amount int    `json:"amount"`
		Unit   string `json:"unit"`
	} `json:"size"`
}

type actionBody struct {
	ID           int        `json:"id"`
	Status       string     `json:"status"`
	Type         string     `json:"type"`
	StartedAt    time.Time  `json:"started_at"`
	CompletedAt  *time.Time `json:"completed_at"`
	ResourceID   *int       `json:"resource_id"`
	ResourceType string     `json:"resource_type"`
	Region       *region    `json:"region,omitempty"`
	RegionSlug   string     `json:"region_slug"`
}

type actionLink struct {
	ID   int    `json:"id"`
	Rel  string `json:"rel"`
	Href string `json:"href"`
}

type linksBody struct {
	Actions []actionLink `json:"actions"`
}

type metaBody struct {
	Total int `json:"total"`
}

type pageLinks struct {
	Pages *pages `json:"pages,omitempty"`
}

type pages struct {
	First string `json:"first,omitempty"`
	Prev  string `json:"prev,omitempty"`
	Next  string `json:"next,omitempty"`
	Last  string `json:"last,omitempty"`
}

type errorBody struct {
	ID        string `json:"id"`
	Message   string `json:"message"`
	RequestID string `json:"request_id"`
}
