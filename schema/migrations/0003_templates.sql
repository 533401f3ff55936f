CREATE TABLE `chat_templates` (
	`name` text PRIMARY KEY NOT NULL,
	`source` text NOT NULL,
	`created_at` integer NOT NULL
);
