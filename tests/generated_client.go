// A custom CSR from its making to its end, by the client that openapi-generator made from the OpenAPI document.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"

	"example/csrd"
)

// The code of the first error of an answer.
func code(err error) int32 {
	var refused *csrd.GenericOpenAPIError
	if !errors.As(err, &refused) {
		log.Fatal(err)
	}
	answer, ok := refused.Model().(csrd.ErrorResponse)
	if !ok {
		log.Fatal(refused.Error(), string(refused.Body()))
	}
	return answer.Errors[0].Code
}

func one(answer *csrd.CustomCsrResponse, err error) csrd.CustomCsr {
	if err != nil {
		log.Fatal(err)
	}
	return answer.Result
}

func main() {
	url, token, zone := os.Args[1], os.Args[2], os.Args[3]
	configuration := csrd.NewConfiguration()
	configuration.Servers = csrd.ServerConfigurations{{URL: url}}
	api := csrd.NewAPIClient(configuration).ZoneCustomCsrsAPI
	ctx := context.WithValue(context.Background(), csrd.ContextAccessToken, token)

	names := []string{"shop.acme-widgets.com"}
	request := csrd.NewCustomCsrRequest("US", "California", "San Francisco", "Acme Widgets, Inc.", names[0], names)
	request.SetName("shop")
	request.SetKeyType(csrd.P256V1)
	answer, _, err := api.ZoneCustomCsrsCreate(ctx, zone).CustomCsrRequest(*request).IdempotencyKey("from-go").Execute()
	made := one(answer, err)
	for made.Status == csrd.PENDING {
		answer, _, err = api.ZoneCustomCsrsGet(ctx, zone, made.Id).Prefer("wait=10").Execute()
		made = one(answer, err)
	}
	if made.Csr.Get() == nil {
		log.Fatal("failed: ", made.GetError())
	}
	fmt.Println(strings.Split(*made.Csr.Get(), "\n")[0])

	listed, _, err := api.ZoneCustomCsrsList(ctx, zone).PerPage(5).Order(csrd.CREATED_AT).Direction(csrd.ASC).Execute()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(listed.Result), *listed.Result[0].Name.Get(), listed.ResultInfo.TotalCount)

	edit := csrd.NewCustomCsrEdit()
	edit.SetNameNil()
	answer, _, err = api.ZoneCustomCsrsEdit(ctx, zone, made.Id).CustomCsrEdit(*edit).Execute()
	fmt.Println(one(answer, err).Name.IsSet(), answer.Result.Name.Get() == nil)

	request.SetCountry("")
	_, _, err = api.ZoneCustomCsrsCreate(ctx, zone).CustomCsrRequest(*request).Execute()
	fmt.Println(code(err))
	if _, _, err = api.ZoneCustomCsrsDelete(ctx, zone, made.Id).Execute(); err != nil {
		log.Fatal(err)
	}
	_, _, err = api.ZoneCustomCsrsGet(ctx, zone, made.Id).Execute()
	fmt.Println(code(err))
}
