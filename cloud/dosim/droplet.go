package dosim

import (
	"net/netip"
	"slices"
	"time"
)

// The states of a droplet, in the API's words.
const (
	statusNew    = "new"
	statusActive = "active"
	statusOff    = "off"
)

// droplet is a droplet's record. The exported fields are kept in the state file.
type droplet struct {
	ID        int
	Name      string
	Size      string
	Image     image // as it was when the droplet was made: an image may be deleted
	Region    string
	VPC       string
	Tags      []string
	Features  []string
	Snapshots []int
	UserData  string
	Private   netip.Addr
	Public    netip.Addr // the zero Addr when it was not wanted
	IPv6      netip.Addr
	Created   time.Time

	Status   string
	ActiveAt time.Time // when "new" ends
	AppAt    time.Time // when the application comes up, if the droplet is active
	GoneAt   time.Time // when a delete takes effect; zero when there was none
	Action   int       // the create action, until it is completed; 0 then
	Pending  int       // the droplet action in progress, or 0

	Hosted bool `json:",omitempty"` // it really runs, outside of the simulator

	Behaviour Behaviour
	Load      Load

	app *app
}

// wantsApp tells whether the droplet's application ought to answer.
func (d *droplet) wantsApp(now time.Time) bool {
	return !d.Hosted && d.Status == statusActive && !d.Behaviour.NoApp && !now.Before(d.AppAt)
}

// nextChange is the next time at which the droplet changes by itself; zero
// when it does not.
func (d *droplet) nextChange(now time.Time) time.Time {
	var next time.Time
	consider := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if d.Status == statusNew && !d.Behaviour.NeverBoot {
		consider(d.ActiveAt)
	}
	if d.Status == statusActive && !d.Behaviour.NoApp {
		consider(d.AppAt)
	}
	consider(d.GoneAt)
	return next
}

func (d *droplet) hasTag(name string) bool { return slices.Contains(d.Tags, name) }

// body is the droplet as the API shows it.
func (d *droplet) body(prefix byte) dropletBody {
	size := findSize(d.Size)
	b := dropletBody{
		ID: d.ID, Name: d.Name,
		Memory: size.Memory, VCPUs: size.VCPUs, Disk: size.Disk, DiskInfo: size.DiskInfo,
		Locked: d.Status == statusNew || d.Pending != 0 || !d.GoneAt.IsZero(), Status: d.Status,
		CreatedAt: d.Created.UTC().Truncate(time.Second), Features: d.Features,
		BackupIDs: []int{}, SnapshotIDs: orEmpty(d.Snapshots), VolumeIDs: []string{},
		Image: &d.Image, Size: size, SizeSlug: d.Size, Region: findRegion(d.Region),
		Tags: orEmpty(d.Tags), VPCUUID: d.VPC,
		Networks: networksBody{V4: []networkV4{}, V6: []networkV6{}},
	}
	if d.Status == statusNew {
		return b // DigitalOcean tells the addresses once the droplet is active
	}
	gateway := netip.AddrFrom4([4]byte{127, prefix, 0, 1}).String()
	if d.Public.IsValid() {
		b.Networks.V4 = append(b.Networks.V4, networkV4{d.Public.String(), "255.255.0.0", gateway, "public"})
	}
	b.Networks.V4 = append(b.Networks.V4, networkV4{d.Private.String(), "255.255.0.0", gateway, "private"})
	if d.IPv6.IsValid() {
		b.Networks.V6 = append(b.Networks.V6, networkV6{d.IPv6.String(), 64, ipv6Gateway(d.IPv6), "public"})
	}
	return b
}

// ipv6For makes the public IPv6 address of a droplet.
func ipv6For(id int) netip.Addr {
	a := netip.MustParseAddr("2604:a880:400:d0::").As16()
	a[10], a[11] = byte(id>>24), byte(id>>16)
	a[12], a[13], a[14], a[15] = byte(id>>8), byte(id), 0xf0, 0x01
	return netip.AddrFrom16(a)
}

func ipv6Gateway(a netip.Addr) string {
	p, _ := a.Prefix(64)
	b := p.Addr().As16()
	b[15] = 1
	return netip.AddrFrom16(b).String()
}

// orEmpty makes a missing list an empty one, which is [] in JSON and not null.
func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
