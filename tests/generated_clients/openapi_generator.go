// A custom CSR from its making to its end, by the Go client that openapi-generator made from the OpenAPI document.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"example/csrd"
)

// The code of the first error of an answer.
func code(err error) int32 {
	var refused *csrd.GenericOpenAPIError
	if !errors.As(err, &refused) {
		log.Fatal("not refused: ", err)
	}
	answer, ok := refused.Model().(csrd.ErrorResponse)
	if !ok {
		log.Fatal(refused.Error(), string(refused.Body()))
	}
	return answer.Errors[0].Code
}

func one(answer *csrd.CustomCsrResponse, err error) csrd.CustomCsr {
	check(err)
	return answer.Result
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	url, token, zone := os.Args[1], os.Args[2], os.Args[3]
	configuration := csrd.NewConfiguration()
	configuration.Servers = csrd.ServerConfigurations{{URL: url}}
	client := csrd.NewAPIClient(configuration)
	csrs, certificates := client.ZoneCustomCsrsAPI, client.ZoneCustomCertificatesAPI
	ctx := context.WithValue(context.Background(), csrd.ContextAccessToken, token)

	create := func(name string) csrd.CustomCsr {
		hosts := []string{"shop.acme-widgets.com"}
		request := csrd.NewCustomCsrRequest("US", "California", "San Francisco", "Acme Widgets, Inc.", hosts[0], hosts)
		request.SetName(name)
		request.SetKeyType(csrd.P256V1)
		answer, _, err := csrs.ZoneCustomCsrsCreate(ctx, zone).CustomCsrRequest(*request).IdempotencyKey("from-go-" + name).Execute()
		check(err)
		if answer.CustomCsrResponse == nil {
			log.Fatal("a set was made")
		}
		return answer.CustomCsrResponse.Result
	}
	made := create("shop-0")
	for made.Status == csrd.PENDING {
		answer, _, err := csrs.ZoneCustomCsrsGet(ctx, zone, made.Id).Prefer("wait=10").Execute()
		made = one(answer, err)
	}
	if made.Csr.Get() == nil {
		log.Fatal("failed: ", made.GetError())
	}
	// Whoever runs this has it signed.
	fmt.Print(*made.Csr.Get())
	chain, err := io.ReadAll(os.Stdin)
	check(err)

	for number := 1; number < 7; number++ {
		create(fmt.Sprint("shop-", number))
	}
	names := []string{}
	for page := int32(1); ; page++ {
		listed, _, err := csrs.ZoneCustomCsrsList(ctx, zone).Page(page).PerPage(5).Order(csrd.CREATED_AT).Direction(csrd.ASC).Execute()
		check(err)
		if len(listed.Result) == 0 {
			break
		}
		for _, row := range listed.Result {
			names = append(names, *row.Name.Get())
		}
	}
	fmt.Println(len(names))

	edit := csrd.NewCustomCsrEdit()
	edit.SetName("renamed")
	answer, _, err := csrs.ZoneCustomCsrsEdit(ctx, zone, made.Id).CustomCsrEdit(*edit).Execute()
	fmt.Println(*one(answer, err).Name.Get())
	edit.SetNameNil()
	answer, _, err = csrs.ZoneCustomCsrsEdit(ctx, zone, made.Id).CustomCsrEdit(*edit).Execute()
	if one(answer, err).Name.Get() == nil {
		fmt.Println("no name")
	}

	upload := csrd.NewCustomCertificateRequest(string(chain))
	upload.SetCustomCsrId(made.Id)
	uploaded, _, err := certificates.ZoneCustomCertificatesCreate(ctx, zone).CustomCertificateRequest(*upload).Execute()
	check(err)
	if uploaded.Result.Status != csrd.CERTIFICATE_ACTIVE {
		log.Fatal(uploaded.Result.Status)
	}
	_, _, err = csrs.ZoneCustomCsrsDelete(ctx, zone, made.Id).Execute()
	fmt.Println(code(err))

	_, _, err = certificates.ZoneCustomCertificatesDelete(ctx, zone, *uploaded.Result.Id.Get()).Execute()
	check(err)
	_, _, err = csrs.ZoneCustomCsrsDelete(ctx, zone, made.Id).Execute()
	check(err)
	_, _, err = csrs.ZoneCustomCsrsGet(ctx, zone, made.Id).Execute()
	fmt.Println(code(err))
}
