/** The GET that everybody is measured by, and its reply, as parts of the options of a load. */
export const hello = { path: () => '/v1/hello/world', body: () => '{"message":"Hello world"}' } as const;
