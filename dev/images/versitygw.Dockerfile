# The static program and nothing else.
FROM scratch
COPY versitygw /bin/versitygw
USER 65532:65532
ENTRYPOINT ["/bin/versitygw"]
