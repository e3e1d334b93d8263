/** The upper bounds of sizes of gRFC A66, in bytes: https://github.com/grpc/proposal/blob/master/A66-otel-stats.md */
export const sizeBuckets = [
  0, 1_024, 2_048, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864, 268_435_456,
  1_073_741_824, 4_294_967_296,
];
