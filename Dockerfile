# The Go release is the one go.mod asks for; a test keeps the two equal.
FROM golang:1.26.8-alpine AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags=-s -o /gateway ./cmd/gateway

# Nothing but the program and the authorities that rediss:// is checked against.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /gateway /gateway
# A number, so that a runtime can see that it is not root without a passwd file.
USER 65532:65532
EXPOSE 3000
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["/gateway","healthcheck"]
ENTRYPOINT ["/gateway"]
