# The stand-ins for AWS in compose.yaml: the same programs, of the same
# versions, that the tests talk to. They keep nothing.

FROM rust:1.95-slim-trixie AS compile
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo install dynoxide-rs --version 3.2.0 --locked --root /dynoxide \
    --no-default-features --features native-sqlite,http-server,cli

FROM debian:trixie-slim AS dynamodb
COPY --from=compile /dynoxide/bin/dynoxide /usr/local/bin/
USER 65534:65534
EXPOSE 8000
HEALTHCHECK --interval=2s --timeout=2s CMD ["bash", "-c", ": <>/dev/tcp/127.0.0.1/8000"]
CMD ["dynoxide", "serve", "--host", "0.0.0.0", "--port", "8000"]

FROM node:22-trixie-slim AS sqs
WORKDIR /opt/fauxqs
RUN npm install --no-audit --no-fund --save-exact fauxqs@2.4.1
USER 1000:1000
EXPOSE 4566
HEALTHCHECK --interval=2s --timeout=2s CMD ["bash", "-c", ": <>/dev/tcp/127.0.0.1/4566"]
CMD ["node", "node_modules/fauxqs/dist/server.js"]
