/** The images under test, as `make e2e` has brought them to the cluster: `PREFIX/greeter:TAG` and so on. */
const { E2E_IMAGES: prefix = 'tandem', E2E_TAG: tag = 'e2e' } = process.env;

export const images = {
  greeter: { repository: `${prefix}/greeter`, tag },
  gateway: { repository: `${prefix}/gateway`, tag },
  /** Sources of the project, and a shell: for what a test itself runs in the cluster. */
  dev: `${prefix}/dev:${tag}`,
};
