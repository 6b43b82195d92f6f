package config

import (
	"fmt"
	"time"
)

// File is doproxy.yml as it is written: what is left out is zero, and gets its
// default when the file is loaded. Build one and write it with YAML to make a
// configuration by program. docs/configuration.md says what each key means.
type File struct {
	Cluster      string           `yaml:"cluster,omitzero"`
	Node         string           `yaml:"node,omitzero"`
	Token        Secret           `yaml:"token,omitzero"`
	TokenFile    string           `yaml:"token_file,omitzero"`
	NeverLead    bool             `yaml:"never_lead,omitzero"`
	DigitalOcean DigitalOceanFile `yaml:"digitalocean,omitzero"`
	Store        string           `yaml:"store,omitzero"`
	Etcd         EtcdFile         `yaml:"etcd,omitzero"`
	Raft         RaftFile         `yaml:"raft,omitzero"`
	API          APIFile          `yaml:"api,omitzero"`
	StateDir     string           `yaml:"state_dir,omitzero"`
	LeaseTTL     time.Duration    `yaml:"lease_ttl,omitzero"`
	NodeTTL      time.Duration    `yaml:"node_ttl,omitzero"`
	HAProxy      HAProxyFile      `yaml:"haproxy,omitzero"`
	Fleet        FleetFile        `yaml:"fleet,omitzero"`
	Advertise    AdvertiseFile    `yaml:"advertise,omitzero"`
	Limits       LimitsFile       `yaml:"limits,omitzero"`
	Ingress      IngressFile      `yaml:"ingress,omitzero"`
	Pools        []PoolFile       `yaml:"pools,omitzero"`

	// The keys of DOProxy's own doproxy.yml.

	SSHKeyIDs           []string           `yaml:"ssh_key_ids,omitzero" number:"ok"`
	UserdataFile        string             `yaml:"userdata_file,omitzero"`
	HAProxyCfgPath      string             `yaml:"haproxy_cfg_path,omitzero"`
	HAProxyCfgFile      string             `yaml:"haproxy_cfg_file,omitzero"`
	HAProxyTemplateFile string             `yaml:"haproxy_template_file,omitzero"`
	InventoryFile       string             `yaml:"inventory_file,omitzero"`
	DropletOptions      DropletOptionsFile `yaml:"droplet_options,omitzero"`
}

type DigitalOceanFile struct {
	URL string `yaml:"url,omitzero"`
}

type EtcdFile struct {
	Endpoints    []string `yaml:"endpoints,omitzero"`
	Username     string   `yaml:"username,omitzero"`
	PasswordFile string   `yaml:"password_file,omitzero"`
	CAFile       string   `yaml:"ca_file,omitzero"`
	CertFile     string   `yaml:"cert_file,omitzero"`
	KeyFile      string   `yaml:"key_file,omitzero"`
}

type RaftFile struct {
	Address   string        `yaml:"address,omitzero"`
	Listen    string        `yaml:"listen,omitzero"`
	Plain     bool          `yaml:"plain,omitzero"`
	DeadAfter time.Duration `yaml:"dead_after,omitzero"`
}

type APIFile struct {
	Socket string `yaml:"socket,omitzero"`
	// Listen: nil is the default, empty is no address but the socket.
	Listen []string `yaml:"listen,omitzero"`
	HTTP   string   `yaml:"http,omitzero"`
	TLS    TLSFile  `yaml:"tls,omitzero"`
}

type TLSFile struct {
	CertFile     string `yaml:"cert_file,omitzero"`
	KeyFile      string `yaml:"key_file,omitzero"`
	ClientCAFile string `yaml:"client_ca_file,omitzero"`
}

type HAProxyFile struct {
	Mode         string `yaml:"mode,omitzero"`
	Binary       string `yaml:"binary,omitzero"`
	ConfigFile   string `yaml:"config_file,omitzero"`
	Template     string `yaml:"template,omitzero"`
	AdminSocket  string `yaml:"admin_socket,omitzero"`
	MasterSocket string `yaml:"master_socket,omitzero"`
	PIDFile      string `yaml:"pid_file,omitzero"`
	// Bind and BindTLS: nil is the default, empty is none.
	Bind          []string      `yaml:"bind,omitzero"`
	BindTLS       []string      `yaml:"bind_tls,omitzero"`
	Certificate   string        `yaml:"certificate,omitzero"`
	Stats         string        `yaml:"stats,omitzero"`
	MaxConn       int           `yaml:"maxconn,omitzero"`
	Log           string        `yaml:"log,omitzero"`
	LogFacility   string        `yaml:"log_facility,omitzero"`
	User          string        `yaml:"user,omitzero"`
	Group         string        `yaml:"group,omitzero"`
	HardStopAfter time.Duration `yaml:"hard_stop_after,omitzero"`
	AuditInterval time.Duration `yaml:"audit_interval,omitzero"`
	Timeouts      TimeoutsFile  `yaml:"timeouts,omitzero"`
}

type TimeoutsFile struct {
	Connect     time.Duration `yaml:"connect,omitzero"`
	Client      time.Duration `yaml:"client,omitzero"`
	Server      time.Duration `yaml:"server,omitzero"`
	Queue       time.Duration `yaml:"queue,omitzero"`
	HTTPRequest time.Duration `yaml:"http_request,omitzero"`
	KeepAlive   time.Duration `yaml:"keep_alive,omitzero"`
	Tunnel      time.Duration `yaml:"tunnel,omitzero"`
	Check       time.Duration `yaml:"check,omitzero"`
}

type FleetFile struct {
	PollInterval     time.Duration `yaml:"poll_interval,omitzero"`
	PollIntervalIdle time.Duration `yaml:"poll_interval_idle,omitzero"`
	CreateTimeout    time.Duration `yaml:"create_timeout,omitzero"`
	Settle           time.Duration `yaml:"settle,omitzero"`
	RemoveDeadline   time.Duration `yaml:"remove_deadline,omitzero"`
	BackoffMin       time.Duration `yaml:"backoff_min,omitzero"`
	BackoffMax       time.Duration `yaml:"backoff_max,omitzero"`
}

type AdvertiseFile struct {
	PublicIPv4  string `yaml:"public_ipv4,omitzero"`
	PublicIPv6  string `yaml:"public_ipv6,omitzero"`
	PrivateIPv4 string `yaml:"private_ipv4,omitzero"`
	DropletID   int64  `yaml:"droplet_id,omitzero"`
}

// LimitsFile bounds the leader; zero is no limit.
type LimitsFile struct {
	Droplets      int     `yaml:"droplets,omitzero"`
	CostHourly    float64 `yaml:"cost_hourly,omitzero"` // US dollars
	CreatesHourly int     `yaml:"creates_hourly,omitzero"`
	LeavePercent  int     `yaml:"leave_percent,omitzero"`
}

// IngressFile is where clients come in.
type IngressFile struct {
	ReservedIPs []string      `yaml:"reserved_ips,omitzero"`
	DNS         []DNSNameFile `yaml:"dns,omitzero"`
	FailAfter   time.Duration `yaml:"fail_after,omitzero"`
	SettleAfter time.Duration `yaml:"settle_after,omitzero"`
	StaleAfter  time.Duration `yaml:"stale_after,omitzero"`
	HoldDown    time.Duration `yaml:"hold_down,omitzero"`
}

type DNSNameFile struct {
	Domain string `yaml:"domain"`
	Name   string `yaml:"name,omitzero"`
	TTL    int    `yaml:"ttl,omitzero"` // seconds
}

type PoolFile struct {
	Name           string       `yaml:"name"`
	HostnamePrefix string       `yaml:"hostname_prefix,omitzero"`
	Desired        *int         `yaml:"desired,omitzero"`
	Min            int          `yaml:"min,omitzero"`
	Max            *int         `yaml:"max,omitzero"` // nil: DefaultMax
	Template       TemplateFile `yaml:"template"`
	Backend        BackendFile  `yaml:"backend,omitzero"`
	Policy         PolicyFile   `yaml:"policy,omitzero"`
}

type TemplateFile struct {
	Region       string   `yaml:"region,omitzero"`
	Size         string   `yaml:"size,omitzero"`
	Image        string   `yaml:"image,omitzero" number:"ok"`
	SSHKeys      []string `yaml:"ssh_keys,omitzero" number:"ok"`
	UserData     string   `yaml:"user_data,omitzero"`
	UserDataFile string   `yaml:"user_data_file,omitzero"`
	VPC          string   `yaml:"vpc,omitzero"`
	IPv6         bool     `yaml:"ipv6,omitzero"`
	Monitoring   bool     `yaml:"monitoring,omitzero"`
	Tags         []string `yaml:"tags,omitzero"`
}

type BackendFile struct {
	Port          int           `yaml:"port,omitzero"`
	Balance       string        `yaml:"balance,omitzero"`
	HealthPath    string        `yaml:"health_path,omitzero"`
	CheckInterval time.Duration `yaml:"check_interval,omitzero"`
	Fall          int           `yaml:"fall,omitzero"`
	Rise          int           `yaml:"rise,omitzero"`
	MaxConn       int           `yaml:"maxconn,omitzero"`
	Hosts         []string      `yaml:"hosts,omitzero"`
	Paths         []string      `yaml:"paths,omitzero"`
}

type PolicyFile struct {
	BootDeadline  time.Duration `yaml:"boot_deadline,omitzero"`
	DrainDeadline time.Duration `yaml:"drain_deadline,omitzero"`
}

// DropletOptionsFile is DOProxy's droplet_options.
type DropletOptionsFile struct {
	HostnamePrefix string `yaml:"hostname_prefix,omitzero"`
	Region         string `yaml:"region,omitzero"`
	Size           string `yaml:"size,omitzero"`
	Image          string `yaml:"image,omitzero" number:"ok"`
}

// YAML writes the file, the token included if there is one: give it mode 0600.
func (f *File) YAML() ([]byte, error) {
	data, err := encode(*f)
	if err != nil {
		return nil, fmt.Errorf("writing the configuration as YAML: %w", err)
	}
	return data, nil
}
