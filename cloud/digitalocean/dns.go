package digitalocean

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/digitalocean/godo"

	"github.com/doproxy/doproxy/cloud"
)

// Records returns the A and AAAA records of a name. The API is asked for the
// name; what it answers is looked through again.
func (c *Client) Records(ctx context.Context, domain, name string) ([]cloud.DNSRecord, error) {
	if err := checkDomain("listing records", domain); err != nil {
		return nil, err
	}
	read := func(ctx context.Context, page *godo.ListOptions) ([]godo.DomainRecord, *godo.Response, error) {
		return c.records(ctx, domain, fullName(domain, name), page)
	}
	answer, err := whole(ctx, "records of "+fullName(domain, name), true, read, func(r *godo.DomainRecord) int { return r.ID })
	if err != nil {
		return nil, err
	}
	var all []cloud.DNSRecord
	for _, r := range answer {
		if (r.Type == "A" || r.Type == "AAAA") && strings.EqualFold(r.Name, name) {
			all = append(all, dnsRecord(r))
		}
	}
	return all, nil
}

// records is godo's RecordsByName, which neither escapes the name nor returns
// how many records there are.
func (c *Client) records(ctx context.Context, domain, fqdn string, page *godo.ListOptions) ([]godo.DomainRecord, *godo.Response, error) {
	q := url.Values{"name": {fqdn}, "page": {strconv.Itoa(page.Page)}, "per_page": {strconv.Itoa(page.PerPage)}}
	req, err := c.api.NewRequest(ctx, http.MethodGet, "v2/domains/"+domain+"/records?"+q.Encode(), nil)
	if err != nil {
		return nil, nil, err
	}
	var answer struct {
		Records []godo.DomainRecord `json:"domain_records"`
		Meta    *godo.Meta          `json:"meta"`
	}
	resp, err := c.api.Do(ctx, req, &answer)
	if err == nil {
		resp.Meta = answer.Meta
	}
	return answer.Records, resp, err
}

// CreateRecord makes a record, whether or not another like it exists.
func (c *Client) CreateRecord(ctx context.Context, domain string, r cloud.DNSRecord) (cloud.DNSRecord, error) {
	if err := checkDomain("creating a record", domain); err != nil {
		return cloud.DNSRecord{}, err
	}
	what := fmt.Sprintf("creating record %s %s %s", fullName(domain, r.Name), r.Type, r.Data)
	answer, _, err := c.api.Domains.CreateRecord(ctx, domain, &godo.DomainRecordEditRequest{Type: r.Type, Name: r.Name, Data: r.Data, TTL: r.TTL})
	if err != nil {
		return cloud.DNSRecord{}, translate(err, true, "%s", what)
	}
	if answer == nil || answer.ID <= 0 {
		return cloud.DNSRecord{}, fmt.Errorf("%s: %w: the answer lacks its id", what, cloud.ErrAmbiguous)
	}
	return dnsRecord(*answer), nil
}

// SetTTL changes a record's TTL to r.TTL. Name and Data are not sent, so that
// what someone else made of them meanwhile stays.
func (c *Client) SetTTL(ctx context.Context, domain string, r cloud.DNSRecord) error {
	if err := checkRecord("changing a record", domain, r.ID); err != nil {
		return err
	}
	_, _, err := c.api.Domains.EditRecord(ctx, domain, int(r.ID), &godo.DomainRecordEditRequest{Type: r.Type, TTL: r.TTL})
	return translate(err, true, "changing record %d of %s", r.ID, domain)
}

// DeleteRecord deletes a record. Its id must come from Records or CreateRecord:
// neither name nor type is looked at.
func (c *Client) DeleteRecord(ctx context.Context, domain string, id int64) error {
	if err := checkRecord("deleting a record", domain, id); err != nil {
		return err
	}
	_, err := c.api.Domains.DeleteRecord(ctx, domain, int(id))
	return translate(err, true, "deleting record %d of %s", id, domain)
}

// checkDomain refuses what would make another path of the request's.
func checkDomain(what, domain string) error {
	if domain == "" || domain == "." || domain == ".." || strings.ContainsAny(domain, "/?#% ") {
		return fmt.Errorf("%s: %w", what, &cloud.Refused{ID: "invalid_request", Message: fmt.Sprintf("domain %q is not a domain's name, such as example.com", domain)})
	}
	return nil
}

func checkRecord(what, domain string, id int64) error {
	if id <= 0 {
		return fmt.Errorf("%s of %s: %w", what, domain, &cloud.Refused{ID: "invalid_request", Message: fmt.Sprintf("%d is not a record's id", id)})
	}
	return checkDomain(what, domain)
}

func fullName(domain, name string) string {
	if name == "@" {
		return domain
	}
	return name + "." + domain
}

func dnsRecord(g godo.DomainRecord) cloud.DNSRecord {
	return cloud.DNSRecord{ID: int64(g.ID), Type: g.Type, Name: g.Name, Data: g.Data, TTL: g.TTL}
}
