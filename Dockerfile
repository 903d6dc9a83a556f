# The release build. RSA keys are made by OpenSSL, which its crate builds from the sources.
FROM rust:1-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends make perl && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package api --features openssl-rsa

FROM debian:bookworm-slim
# The roots that an identity provider's certificate is checked against.
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
RUN useradd --system --create-home --home-dir /var/lib/csrd csrd
COPY --from=build /src/target/release/csrd /usr/local/bin/csrd
USER csrd
# The data directory: the database, where it is SQLite, and the master key.
VOLUME /var/lib/csrd
ENV CSRD_DATA_DIR=/var/lib/csrd CSRD_LISTEN=0.0.0.0:8080
EXPOSE 8080
ENTRYPOINT ["csrd"]
