CREATE TABLE `evidence_chains` (
	`node_id` text NOT NULL,
	`chain` text NOT NULL,
	`segments` integer NOT NULL,
	`head` text NOT NULL,
	`updated_at` integer NOT NULL,
	PRIMARY KEY(`node_id`, `chain`)
);
--> statement-breakpoint
CREATE TABLE `sweeps` (
	`name` text PRIMARY KEY NOT NULL,
	`before` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `usage_hours` (
	`account_id` text NOT NULL,
	`key_id` text NOT NULL,
	`model` text NOT NULL,
	`hour` integer NOT NULL,
	`requests` integer NOT NULL,
	`hit_tokens` integer NOT NULL,
	`miss_tokens` integer NOT NULL,
	`output_tokens` integer NOT NULL,
	`credit_nano` integer NOT NULL,
	`charged_nano` integer NOT NULL,
	PRIMARY KEY(`account_id`, `key_id`, `model`, `hour`)
);
--> statement-breakpoint
DROP INDEX `prefix_blocks_seen`;--> statement-breakpoint
ALTER TABLE `prefix_blocks` ADD `scope` text DEFAULT '' NOT NULL;--> statement-breakpoint
CREATE INDEX `prefix_blocks_scope` ON `prefix_blocks` (`scope`,`seen_at`);--> statement-breakpoint
ALTER TABLE `nodes` ADD `kv_pages` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `nodes` ADD `kv_pages_used` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `nodes` ADD `prompt_tokens` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `nodes` ADD `cached_tokens` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `nodes` ADD `predicted_tokens` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `nodes` ADD `predicted_right_tokens` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
DELETE FROM `prefix_blocks`;--> statement-breakpoint
INSERT INTO `usage_hours` SELECT `account_id`, `key_id`, `model`, `settled_at` - `settled_at` % 3600000 AS `hour`, count(*), sum(`hit_tokens`), sum(`miss_tokens`), sum(`output_tokens`), sum(`credit_nano`), sum(`charged_nano`) FROM `usage` GROUP BY `account_id`, `key_id`, `model`, `hour`;--> statement-breakpoint
CREATE TRIGGER `usage_to_hours` AFTER INSERT ON `usage` BEGIN INSERT INTO `usage_hours` VALUES (NEW.`account_id`, NEW.`key_id`, NEW.`model`, NEW.`settled_at` - NEW.`settled_at` % 3600000, 1, NEW.`hit_tokens`, NEW.`miss_tokens`, NEW.`output_tokens`, NEW.`credit_nano`, NEW.`charged_nano`) ON CONFLICT DO UPDATE SET `requests` = `requests` + 1, `hit_tokens` = `hit_tokens` + excluded.`hit_tokens`, `miss_tokens` = `miss_tokens` + excluded.`miss_tokens`, `output_tokens` = `output_tokens` + excluded.`output_tokens`, `credit_nano` = `credit_nano` + excluded.`credit_nano`, `charged_nano` = `charged_nano` + excluded.`charged_nano`; END;
