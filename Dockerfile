# The release build. RSA keys are made by OpenSSL, which its crate builds from the sources.
FROM rust:1-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends make perl && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package api --features openssl-rsa && mkdir --mode=0700 /csrd-data

# No shell and no package manager: the C library, and the roots that an identity provider's certificate is checked against.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/csrd /usr/local/bin/csrd
# The data directory: the database, where it is SQLite, and the master key. 65532 is the image's user, by number since Kubernetes asks for one.
COPY --from=build --chown=65532:65532 --chmod=0700 /csrd-data /var/lib/csrd
USER 65532:65532
VOLUME /var/lib/csrd
ENV CSRD_DATA_DIR=/var/lib/csrd CSRD_LISTEN=0.0.0.0:8080
EXPOSE 8080
ENTRYPOINT ["csrd"]
