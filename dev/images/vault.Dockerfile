# The static program and nothing else: server and command line client.
FROM scratch
COPY vault /bin/vault
ENV PATH=/bin
USER 65532:65532
ENTRYPOINT ["/bin/vault"]
