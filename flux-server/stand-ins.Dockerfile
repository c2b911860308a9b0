# The stand-ins for AWS in compose.yaml: the same programs, of the same
# versions, that the tests talk to. They keep nothing.

FROM rust:1.95-slim-trixie@sha256:ee4fa026a11f9e8b1b00568364a880dc720409bb94b0e6800f63f974f9c909d5 AS compile
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo install dynoxide-rs --version 3.2.0 --locked --root /dynoxide \
    --no-default-features --features native-sqlite,http-server,cli

FROM debian:trixie-slim@sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f AS dynamodb
COPY --from=compile /dynoxide/bin/dynoxide /usr/local/bin/
USER 65534:65534
EXPOSE 8000
HEALTHCHECK --interval=2s --timeout=2s CMD ["bash", "-c", ": <>/dev/tcp/127.0.0.1/8000"]
CMD ["dynoxide", "serve", "--host", "0.0.0.0", "--port", "8000"]

FROM node:22-trixie-slim@sha256:b26b04c123d9ff8ab646ceb18b9d75a1173acf64b9a401094b906d27b29338d4 AS sqs
WORKDIR /opt/fauxqs
COPY tests/pinned/npm/services/package.json tests/pinned/npm/services/package-lock.json ./
RUN npm ci --no-audit --no-fund --ignore-scripts --omit=optional
USER 1000:1000
EXPOSE 4566
HEALTHCHECK --interval=2s --timeout=2s CMD ["bash", "-c", ": <>/dev/tcp/127.0.0.1/4566"]
CMD ["node", "node_modules/fauxqs/dist/server.js"]
