import process from 'node:process';

/*
 * Preloaded into each subject: tells the bench what the process has used so far, when it asks. The channel does not keep
 * the process alive.
 */
process.on('message', (message) => {
  if (message !== 'usage') return;
  const { user, system } = process.cpuUsage();
  process.send?.({ cpuUs: user + system, rssBytes: process.memoryUsage.rss() });
});
process.channel?.unref();
process.once('disconnect', () => process.exit());
