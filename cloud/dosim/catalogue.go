package dosim

import (
	"slices"
	"strconv"
	"time"
)

// region is a data centre, in the API's own form.
type region struct {
	Name      string   `json:"name"`
	Slug      string   `json:"slug"`
	Features  []string `json:"features"`
	Available bool     `json:"available"`
	Sizes     []string `json:"sizes"`
}

// size is a droplet size, in the API's own form. Prices are US dollars,
// memory is MiB, disk GiB, transfer TiB a month.
type size struct {
	Slug         string     `json:"slug"`
	Memory       int        `json:"memory"`
	VCPUs        int        `json:"vcpus"`
	Disk         int        `json:"disk"`
	Transfer     float64    `json:"transfer"`
	PriceMonthly float64    `json:"price_monthly"`
	PriceHourly  float64    `json:"price_hourly"`
	Regions      []string   `json:"regions"`
	Available    bool       `json:"available"`
	Description  string     `json:"description"`
	DiskInfo     []diskBody `json:"disk_info"`
}

// image is what a droplet starts from, in the API's own form.
type image struct {
	ID            int       `json:"id"`
	Name          string    `json:"name"`
	Type          string    `json:"type"`
	Distribution  string    `json:"distribution"`
	Slug          *string   `json:"slug"`
	Public        bool      `json:"public"`
	Regions       []string  `json:"regions"`
	CreatedAt     time.Time `json:"created_at"`
	MinDiskSize   int       `json:"min_disk_size"`
	SizeGigabytes float64   `json:"size_gigabytes"`
	Description   string    `json:"description"`
	Tags          []string  `json:"tags"`
	Status        string    `json:"status"`
	ErrorMessage  string    `json:"error_message"`
}

// hasSlugOrID tells whether the image is the one a client names by slug or number.
func (i *image) hasSlugOrID(s string) bool {
	return s != "" && (i.Slug != nil && *i.Slug == s || strconv.Itoa(i.ID) == s)
}

var catalogueRegions, catalogueSizes, catalogueImages = newCatalogue()

func newCatalogue() ([]*region, []*size, []*image) {
	var regions []*region
	var sizes []*size
	var images []*image
	var regionSlugs, sizeSlugs []string
	for _, r := range []struct{ slug, name string }{
		{"nyc1", "New York 1"}, {"nyc2", "New York 2"}, {"nyc3", "New York 3"}, {"ams3", "Amsterdam 3"},
		{"sfo3", "San Francisco 3"}, {"fra1", "Frankfurt 1"}, {"lon1", "London 1"}, {"sgp1", "Singapore 1"},
		{"tor1", "Toronto 1"}, {"blr1", "Bangalore 1"}, {"syd1", "Sydney 1"},
	} {
		regionSlugs = append(regionSlugs, r.slug)
		regions = append(regions, &region{
			Name: r.name, Slug: r.slug, Available: true,
			Features: []string{"backups", "ipv6", "metadata", "install_agent", "storage", "image_transfer"},
		})
	}
	for _, s := range []struct {
		slug                string
		memory, vcpus, disk int
		transfer            float64
		monthly, hourly     float64
		description         string
	}{
		{"512mb", 512, 1, 20, 1, 5, 0.00744, "Legacy Basic"},
		{"1gb", 1024, 1, 30, 2, 10, 0.01488, "Legacy Basic"},
		{"2gb", 2048, 2, 40, 3, 20, 0.02976, "Legacy Basic"},
		{"4gb", 4096, 2, 60, 4, 40, 0.05952, "Legacy Basic"},
		{"s-1vcpu-512mb-10gb", 512, 1, 10, 0.5, 4, 0.00595, "Basic"},
		{"s-1vcpu-1gb", 1024, 1, 25, 1, 6, 0.00893, "Basic"},
		{"s-1vcpu-1gb-amd", 1024, 1, 25, 1, 7, 0.01042, "Basic AMD"},
		{"s-1vcpu-1gb-intel", 1024, 1, 25, 1, 7, 0.01042, "Basic Intel"},
		{"s-1vcpu-2gb", 2048, 1, 50, 2, 12, 0.01786, "Basic"},
		{"s-2vcpu-2gb", 2048, 2, 60, 3, 18, 0.02679, "Basic"},
		{"s-2vcpu-4gb", 4096, 2, 80, 4, 24, 0.03571, "Basic"},
		{"s-4vcpu-8gb", 8192, 4, 160, 5, 48, 0.07143, "Basic"},
		{"s-8vcpu-16gb", 16384, 8, 320, 6, 96, 0.14286, "Basic"},
		{"c-2", 4096, 2, 25, 4, 42, 0.0625, "CPU-Optimized"},
		{"c-4", 8192, 4, 50, 5, 84, 0.125, "CPU-Optimized"},
		{"g-2vcpu-8gb", 8192, 2, 25, 4, 63, 0.09375, "General Purpose"},
		{"m-2vcpu-16gb", 16384, 2, 50, 4, 84, 0.125, "Memory-Optimized"},
	} {
		sizeSlugs = append(sizeSlugs, s.slug)
		disk := diskBody{Type: "local"}
		disk.Size.Amount, disk.Size.Unit = s.disk, "gib"
		sizes = append(sizes, &size{
			Slug: s.slug, Memory: s.memory, VCPUs: s.vcpus, Disk: s.disk, Transfer: s.transfer,
			PriceMonthly: s.monthly, PriceHourly: s.hourly, Regions: regionSlugs, Available: true,
			Description: s.description, DiskInfo: []diskBody{disk},
		})
	}
	for _, r := range regions {
		r.Sizes = sizeSlugs
	}
	for _, i := range []struct {
		id                       int
		slug, distribution, name string
		gigabytes                float64
		minDisk                  int
	}{
		{6918990, "ubuntu-14-04-x64", "Ubuntu", "14.04 x64", 2.34, 10},
		{129211873, "ubuntu-22-04-x64", "Ubuntu", "22.04 (LTS) x64", 2.38, 7},
		{155133621, "ubuntu-24-04-x64", "Ubuntu", "24.04 (LTS) x64", 2.42, 7},
		{139080808, "debian-12-x64", "Debian", "12 x64", 2.21, 7},
	} {
		slug := i.slug
		images = append(images, &image{
			ID: i.id, Name: i.name, Type: "base", Distribution: i.distribution, Slug: &slug, Public: true,
			Regions: slices.Clone(regionSlugs), CreatedAt: time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC),
			MinDiskSize: i.minDisk, SizeGigabytes: i.gigabytes, Description: i.distribution + " " + i.name,
			Tags: []string{}, Status: "available",
		})
	}
	return regions, sizes, images
}

func findRegion(slug string) *region {
	for _, r := range catalogueRegions {
		if r.Slug == slug {
			return r
		}
	}
	return nil
}

func findSize(slug string) *size {
	for _, s := range catalogueSizes {
		if s.Slug == slug {
			return s
		}
	}
	return nil
}
